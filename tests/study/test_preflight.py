"""Preflight of a study, in this process: every line that it reports, and that it leaves nothing."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lightning.pytorch import Callback
from torch import Tensor

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import with_flags
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.preflight import Findings, run_preflight
from lightning_hpo.study_folder import StudyFolder
from tests.foreign import ForeignModule
from tests.tiny import write_tiny_corpus, write_tiny_encoder

Check = Callable[..., Findings]
_CALLBACKS = "lightning.pytorch.callbacks"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs a preflight, and checks that it leaves no file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "x").mkdir(parents=True)

    def files() -> list[Path]:
        return sorted(path for path in tmp_path.rglob("*") if ".cache" not in path.parts)

    def run(config: Mapping[str, Any], corners: Sequence[Mapping[str, Any]] = (), **settings: Any) -> Findings:
        before = files()
        ours, theirs = multiprocessing.Pipe()
        study = StudySettings(name="x", **settings)
        values = AgentCLI(config, instantiate=False).values
        run_preflight(values, study, corners, [], StudyFolder(tmp_path / "outputs" / "x").rehearsal, theirs)
        found: Findings = ours.recv()
        assert files() == before
        return found

    return run


def _foreign(module: str = "tests.foreign.ForeignModule", **trainer: Any) -> dict[str, Any]:
    return {
        "model": {"class_path": module},
        "data": {"class_path": "tests.foreign.ForeignData"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", **trainer},
    }


def _callback(name: str, **arguments: Any) -> list[dict[str, Any]]:
    path = name if "." in name else f"{_CALLBACKS}.{name}"
    return [{"class_path": path, "init_args": arguments}]


WORKS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no checkpoints": {"enable_checkpointing": False},
    "a progress bar": {"callbacks": _callback("RichProgressBar")},
    "a learning rate monitor": {"callbacks": _callback("LearningRateMonitor")},
    "statistics of the device": {"callbacks": _callback("DeviceStatsMonitor")},
    "barebones": {"barebones": True},
    "a profiler": {"profiler": "simple"},
    "a time limit": {"max_time": "00:01:00:00"},
    "a time of validation": {"val_check_interval": "00:00:10:00"},
    "all batches of validation before training": {"num_sanity_val_steps": -1},
    "accumulation over more than the data": {"accumulate_grad_batches": 100},
    "a metric of the training": {"callbacks": _callback("EarlyStopping", monitor="train_loss")},
    "a metric of a lax callback": {"callbacks": _callback("EarlyStopping", monitor="val_none", strict=False)},
    "averaged weights": {"callbacks": _callback("StochasticWeightAveraging", swa_lrs=0.1)},
    "anomalies": {"detect_anomaly": True, "inference_mode": False, "deterministic": True},
}


NOTICED = ("no checkpoints", "a progress bar", "a learning rate monitor", "statistics of the device", "barebones")


@pytest.mark.parametrize("case", WORKS)
def test_rehearsal_of_a_trial_that_works_finds_nothing(check: Check, case: str) -> None:
    found = check(_foreign(**WORKS[case]))
    assert (found.problems, found.failure) == ([], "")
    assert found.precision == "32-true"
    assert bool(found.notices) == (case in NOTICED)


class KeepsAnObject(Callback):
    """Callback whose state cannot be read without pickle."""

    def state_dict(self) -> dict[str, Any]:
        return {"path": Path("x")}


class Manual(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Untraceable(ForeignModule):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(x.detach().numpy()))


class WithoutExample(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.example_input_array = None


class Diverging(ForeignModule):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step([batch[0] * torch.nan, batch[1]], batch_idx)


FAILS: dict[str, tuple[dict[str, Any], str]] = {
    "development run": (_foreign(fast_dev_run=True), "--trainer.fast_dev_run: got true; "),
    "same batches": (_foreign(overfit_batches=2), "--trainer.overfit_batches: got 2; "),
    "no validation": (_foreign(limit_val_batches=0), "--trainer.limit_val_batches: got 0; "),
    "too small a share": (_foreign(limit_val_batches=0.01), "--trainer.limit_val_batches: You requested to check 0.01"),
    "too few steps": (
        _foreign(max_steps=2),
        "--trainer.max_steps: got 2, but the first validation comes after 4 steps",
    ),
    "validation too late": (
        _foreign(val_check_interval=99),
        "--trainer.val_check_interval: got 99, but an epoch has 4",
    ),
    "monitor of early stopping": (
        _foreign(callbacks=_callback("EarlyStopping", monitor="val_f1")),
        "--trainer.callbacks: EarlyStopping: its monitor 'val_f1' is never logged; metrics: train_loss, val_loss, ",
    ),
    "monitor of a checkpoint": (
        _foreign(callbacks=_callback("ModelCheckpoint", monitor="val_f1", every_n_train_steps=500)),
        "--trainer.callbacks: ModelCheckpoint: its monitor 'val_f1' is never logged; ",
    ),
    "clipping": (
        _foreign("tests.study.test_preflight.Manual", gradient_clip_val=1.0),
        "--trainer.gradient_clip_val: Automatic gradient clipping is not supported for manual optimization.",
    ),
    "mode of early stopping": (
        _foreign(callbacks=_callback("EarlyStopping", monitor="val_loss", mode="up")),
        "--trainer.callbacks: `mode` can be",
    ),
    "unknown strategy": (_foreign(strategy="none"), "--trainer.strategy: You selected an invalid strategy name"),
    "state with an object": (
        _foreign(callbacks=_callback("tests.study.test_preflight.KeepsAnObject")),
        "a checkpoint of a trial cannot be read without pickle: it holds pathlib.",
    ),
    "export": (
        _foreign("tests.study.test_preflight.Untraceable"),
        "--model: Untraceable cannot be logged as a",
    ),
    "no example": (
        _foreign("tests.study.test_preflight.WithoutExample"),
        "--model: WithoutExample cannot be logged",
    ),
    "loss": (
        _foreign("tests.study.test_preflight.Diverging"),
        "--model: train_loss is nan at epoch 0, after one batch",
    ),
}


@pytest.mark.parametrize("case", FAILS)
def test_trial_that_cannot_work_is_refused_in_one_line(check: Check, case: str) -> None:
    config, line = FAILS[case]
    [problem] = check(config).problems
    assert problem.startswith(line)
    assert "\n" not in problem


def test_monitor_of_the_study_must_be_logged(check: Check) -> None:
    [problem] = check(_foreign(), monitor="val_f1", mode="max").problems
    assert problem.startswith("--study.monitor: 'val_f1' is never logged")


def test_exception_of_a_module_is_reported_by_its_place_without_its_message(
    check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    found = check({**_foreign(), "model": {"class_path": "tests.foreign.ForeignModule", "init_args": {"fails": True}}})
    assert found.failure.startswith("RuntimeError in ")
    assert "foreign.py, line " in found.failure
    shown = capsys.readouterr().err
    assert "training_step" in shown
    assert "in a batch of 16" not in found.failure + shown


def test_model_that_cannot_be_exported_is_searched_if_none_is_registered(check: Check) -> None:
    found = check(_foreign("tests.study.test_preflight.Untraceable"), register=False)
    assert found.problems == []
    assert found.notices[0].startswith("--model: Untraceable cannot be logged as a model")


_SIZE: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}
BERT = transformers.BertConfig(**_SIZE)
GPT2 = transformers.GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2, n_positions=64)


def _text(encoder: str, **model: Any) -> dict[str, Any]:
    files = {"posts": "posts.csv", "annotations": "annotations.csv", "criteria": "criteria.yaml"}
    return {
        "model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": encoder, **model}},
        "data": {
            "class_path": "lightning_hpo.data.CriteriaDataModule",
            "init_args": {**files, "max_length": 24, "stride": 4, "val_fraction": 0.3},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }


ENCODERS: dict[str, tuple[dict[str, Any], str]] = {
    "cannot be exported": (
        {"config": transformers.LongformerConfig(**_SIZE, attention_window=8)},
        "--model: TextNetwork cannot be logged as a model: torch.export raised ",
    ),
    "reads nothing": (
        {"config": GPT2},
        "--model.head.pooling: got cls, but in gpt2 models, the first token ",
    ),
    "has fewer embeddings": (
        {"config": transformers.BertConfig(**{**_SIZE, "vocab_size": 12})},
        "--model.name: its tokenizer has token ids up to 18, but the encoder has embeddings for 12; ",
    ),
    "has fewer positions": (
        {"config": transformers.MPNetConfig(**{**_SIZE, "max_position_embeddings": 25}), "model_max_length": None},
        "--data.max_length: 24 is more than the 23 tokens that the encoder takes",
    ),
    "generates text": (
        {"config": transformers.T5Config(vocab_size=24, d_model=16, d_kv=8, num_layers=1, num_heads=2, d_ff=16)},
        "--model.name: got 'encoder', which is a t5 model, not an encoder",
    ),
    "sees images": (
        {"config": transformers.ViTConfig(**_SIZE, image_size=16, patch_size=8)},
        "--model.name: got 'encoder', a vit model, which fails on token ids",
    ),
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_tiny_corpus(tmp_path)
    return tmp_path


# raised by torch.export
_EXPORTS = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@_EXPORTS
@pytest.mark.parametrize("case", ENCODERS)
def test_encoder_that_cannot_work_is_refused(corpus: Path, check: Check, case: str) -> None:
    tokens, line = ENCODERS[case]
    write_tiny_encoder(corpus / "encoder", **tokens)
    [problem] = check(_text("encoder")).problems
    assert problem.startswith(line)


@_EXPORTS
def test_encoders_of_a_search_space_that_cannot_work_are_refused(corpus: Path, check: Check) -> None:
    write_tiny_encoder(corpus / "good", BERT)
    (corpus / "bad").mkdir()
    lines = []
    for number, (tokens, line) in enumerate(ENCODERS.values()):
        write_tiny_encoder(corpus / "bad" / str(number), **tokens)
        shown = line.removeprefix("--model: ").replace("'encoder'", f"'bad/{number}'")
        lines.append(f"search_space: with the encoder bad/{number}: {shown}")
    corners = [{"model.name": name} for name in ("good", *(f"bad/{number}" for number in range(len(lines))))]
    problems = check(_text("good"), corners).problems
    assert [problem[: len(line)] for problem, line in zip(problems, lines, strict=True)] == lines


@_EXPORTS
@pytest.mark.parametrize(
    ("freeze", "reinit", "line"),
    [
        (0, 2, "--model.reinit_layers: got 2, but the encoder has 1 layers"),
        (
            1,
            1,
            "--model.reinit_layers: got 1 with --model.freeze_layers 1, but the encoder has 1 layers, and re-init",
        ),
    ],
)
def test_layers_that_an_encoder_of_the_space_cannot_reinitialize_are_refused(
    corpus: Path, check: Check, freeze: int, reinit: int, line: str
) -> None:
    for name in ("good", "other"):
        write_tiny_encoder(corpus / name, BERT)
    corners: list[dict[str, Any]] = [{"model.name": "good"}]
    corners += [
        {"model.name": "other", "model.freeze_layers": frozen, "model.reinit_layers": new}
        for frozen, new in ((0, 0), (freeze, 0), (0, reinit), (freeze, reinit))
    ]
    [problem] = check(_text("good"), corners).problems
    assert problem.startswith(f"search_space: with the encoder other: {line}")


@_EXPORTS
@pytest.mark.parametrize("agent", ["Evidence", "Joint"])
def test_causal_encoder_of_the_space_is_refused_where_the_first_token_means_no_evidence(
    corpus: Path, check: Check, agent: str
) -> None:
    write_tiny_encoder(corpus / "good", BERT)
    write_tiny_encoder(corpus / "causal", GPT2)
    config = _text("good")
    config["model"]["class_path"] = f"lightning_hpo.agents.{agent}Agent"
    config["data"]["class_path"] = f"lightning_hpo.data.{agent}DataModule"
    [problem] = check(config, [{"model.name": "good"}, {"model.name": "causal"}], register=False).problems
    assert problem.startswith("search_space: with the encoder causal: --model.name: got a gpt2 model, but the first ")


@pytest.mark.parametrize("case", ["reads nothing", "has fewer embeddings", "has fewer positions", "sees images"])
def test_fit_reports_the_same_line(corpus: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    tokens, line = ENCODERS[case]
    monkeypatch.chdir(corpus)
    write_tiny_encoder(corpus / "encoder", **tokens)
    config = with_flags(_text("encoder"), {"trainer.logger": False, "trainer.default_root_dir": str(corpus)})
    with pytest.raises(InputError) as caught:
        AgentCLI(config).train()
    [problem] = caught.value.problems
    assert problem.startswith(line)


GOOD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "causal, mean": ({"config": GPT2}, {"head": {"pooling": "mean"}}),
    "causal, last": ({"config": GPT2}, {"head": {"pooling": "last"}}),
    "bidirectional, last": ({"config": BERT}, {"head": {"pooling": "last"}}),
    "no special tokens": (
        {"config": BERT, "cls_token": None, "sep_token": None, "pad_token": None, "model_max_length": None},
        {"head": {"pooling": "attention"}},
    ),
    "one token type": ({"config": transformers.BertConfig(**_SIZE, type_vocab_size=1)}, {}),
    "a mask token without an embedding": (
        {"config": transformers.BertConfig(**{**_SIZE, "vocab_size": 19}), "mask_token": "[MASK]"},
        {},
    ),
}


@_EXPORTS
@pytest.mark.parametrize("case", GOOD)
def test_unusual_encoder_that_works_is_accepted(corpus: Path, check: Check, case: str) -> None:
    tokens, model = GOOD[case]
    write_tiny_encoder(corpus / "encoder", **tokens)
    found = check(_text("encoder", **model))
    assert (found.problems, found.failure, found.notices) == ([], "", [])
    assert set(found.baselines) == {"always met", "never met", "TF-IDF + logistic regression"}
