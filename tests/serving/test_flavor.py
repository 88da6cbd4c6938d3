"""Both agents are logged to a separate MLflow store and loaded again, as a torch module and as a pyfunc."""

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule
from mlflow.tracking import MlflowClient
from torch import Tensor, nn

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
from lightning_hpo.agents.pair_decoding import MetDecision
from lightning_hpo.config.trainer import Precision, Trainer
from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule
from lightning_hpo.data.sentences import sentence_ranges
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.serving.flavor import log_model, restore_decision, save_model
from tests.conftest import Copy
from tests.tiny import LONG_POST, tiny_data, write_tiny_encoder

pytestmark = [
    # Raised inside torch.export.
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, ready_databases: Copy) -> Iterator[tuple[str, str]]:
    """Return a tracking URI and the ID of an experiment in it."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = ready_databases(folder, "mlflow.db")
    before = mlflow.get_tracking_uri()
    experiment = MlflowClient(uri).create_experiment("serving", artifact_location=str(folder / "artifacts"))
    mlflow.set_tracking_uri(uri)
    yield uri, experiment
    mlflow.set_tracking_uri(before)


@pytest.fixture
def run_id(store: tuple[str, str]) -> str:
    return str(MlflowClient(store[0]).create_run(store[1]).info.run_id)


@pytest.fixture
def data(encoder: str) -> Any:
    return tiny_data(encoder)


@pytest.fixture(params=[CriteriaAgent, EvidenceAgent])
def agent(request: pytest.FixtureRequest, encoder: str) -> Any:
    torch.manual_seed(1)
    return request.param(encoder)


def _rows(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["criterion", "post"])


@pytest.mark.usefixtures("store")
def test_logged_agent_predicts_raw_text(agent: Any, data: Any, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = log_model(agent, data, run_id=run_id, step=3).uri
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(uri)
    rows = _rows(("FATIGUE", "i am so tired"), ("so tired", "i am so tired"), ("SLEEP_ISSUES", LONG_POST))
    answers = model.predict(rows)
    assert len(answers) == 3
    pd.testing.assert_series_equal(answers.iloc[0], answers.iloc[1], check_names=False)
    pd.testing.assert_frame_equal(
        answers.iloc[2:].reset_index(drop=True), model.predict(rows.iloc[2:].reset_index(drop=True))
    )
    if isinstance(agent, CriteriaAgent):
        assert list(answers) == ["met", "probability", "threshold", "free_text", "problem"]
        assert (answers["met"] == (answers["probability"] >= 0.5)).all()
    else:
        assert list(answers) == ["start", "end", "text", "score", "null", "free_text", "problem"]
        for post, answer in zip(rows["post"], answers.to_dict("records"), strict=True):
            assert answer["text"] == ("" if answer["null"] else post[answer["start"] : answer["end"]])


@pytest.mark.usefixtures("store")
def test_pyfunc_predictions_equal_predict_step(agent: Any, encoder: str, run_id: str, tmp_path: Path) -> None:
    posts = {"a": LONG_POST, "b": "i am so tired", "c": "the dog is fine today"}
    pd.DataFrame(posts.items(), columns=["post_id", "text"]).to_csv(tmp_path / "posts.csv", index=False)
    kind = CriteriaDataModule if isinstance(agent, CriteriaAgent) else EvidenceDataModule
    data = kind(posts=str(tmp_path / "posts.csv"), tokenizer=encoder, max_length=64, stride=8)
    data.setup("predict")
    agent.eval()
    expected = [answer for batch in data.predict_dataloader() for answer in agent.predict_step(batch)]
    model = mlflow.pyfunc.load_model(log_model(agent, data, run_id=run_id).uri)
    answers = model.predict(_rows(*((answer["criterion"], posts[answer["post_id"]]) for answer in expected)))
    key = "probability" if isinstance(agent, CriteriaAgent) else "score"
    assert len(expected) == 27
    np.testing.assert_allclose(answers[key], [answer[key] for answer in expected], rtol=1e-4, atol=1e-4)


def test_empty_post_has_no_answer_and_the_others_have_theirs(agent: Any, encoder: str, tmp_path: Path) -> None:
    kind = CriteriaDataModule if isinstance(agent, CriteriaAgent) else EvidenceDataModule

    def rows(*posts: tuple[str, str]) -> list[dict[str, Any]]:
        pd.DataFrame(posts, columns=["post_id", "text"]).to_csv(tmp_path / "posts.csv", index=False)
        data = kind(posts=str(tmp_path / "posts.csv"), tokenizer=encoder, max_length=64, stride=8)
        data.setup("predict")
        agent.eval()
        return [answer for batch in data.predict_dataloader() for answer in agent.predict_step(batch)]

    usual = rows(("p1", "i am so tired"), ("p3", LONG_POST))
    found = rows(("p1", "i am so tired"), ("p2", " "), ("p3", LONG_POST))
    keys = set(usual[0]) - {"post_id", "criterion"}
    unanswered = [answer for answer in found if answer["post_id"] == "p2"]
    assert len(unanswered) == 9
    for answer in unanswered:
        assert answer == {
            **dict.fromkeys(keys),
            "post_id": "p2",
            "criterion": answer["criterion"],
            "problem": "the post is empty",
        }
    answered = {(answer["post_id"], answer["criterion"]): answer for answer in found if answer["post_id"] != "p2"}
    assert all("problem" not in answer for answer in answered.values())
    key = "probability" if isinstance(agent, CriteriaAgent) else "score"
    for answer in usual:
        assert answered[answer["post_id"], answer["criterion"]][key] == pytest.approx(answer[key], rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_precision_is_saved(precision: Precision, encoder: str, data: Any, tmp_path: Path) -> None:
    agent = CriteriaAgent(encoder)
    agent.trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    save_model(str(tmp_path / "model"), module=agent, datamodule=data)
    settings = json.loads((tmp_path / "model" / "data" / "texts" / "serving.json").read_text(encoding="utf-8"))
    assert settings["precision"] == precision


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("null_threshold", [-1000.0, 1000.0])
def test_decoding_settings_are_saved(null_threshold: float, encoder: str, data: Any, run_id: str) -> None:
    agent = EvidenceAgent(encoder, decoding={"max_answer_tokens": 2, "null_threshold": null_threshold})
    model = mlflow.pyfunc.load_model(log_model(agent, data, run_id=run_id).uri)
    answer = model.predict(_rows(("FATIGUE", LONG_POST))).iloc[0]
    assert bool(answer["null"]) == (null_threshold < 0)
    assert len(answer["text"].split()) <= 2
    assert bool(answer["text"]) == (null_threshold > 0)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("threshold", [-1000.0, 1000.0])
def test_calibrated_threshold_is_saved(threshold: float, encoder: str, data: Any, run_id: str) -> None:
    agent = EvidenceAgent(encoder, decoding={"null_policy": "calibrated"})
    agent.null_threshold.fill_(threshold)
    uri = log_model(agent, data, run_id=run_id).uri
    restored = EvidenceAgent(encoder, decoding={"null_policy": "calibrated"})
    restore_decision(mlflow.artifacts.download_artifacts(uri), restored)
    assert restored.decoding == agent.decoding
    answer = mlflow.pyfunc.load_model(uri).predict(_rows(("FATIGUE", LONG_POST))).iloc[0]
    assert bool(answer["null"]) == (threshold < 0)


@pytest.mark.usefixtures("store")
def test_fitted_thresholds_are_saved_and_a_parameter_replaces_them(encoder: str, data: Any, run_id: str) -> None:
    agent = CriteriaAgent(encoder, threshold="per_criterion")
    agent.decision = MetDecision(2.0, 0.25, {"SLEEP_ISSUES": 0.75})
    uri = log_model(agent, data, run_id=run_id).uri
    restored = CriteriaAgent(encoder, threshold="per_criterion")
    restore_decision(mlflow.artifacts.download_artifacts(uri), restored)
    assert restored.decision == agent.decision
    model = mlflow.pyfunc.load_model(uri)
    rows = _rows(*((name, LONG_POST) for name in ("FATIGUE", "SLEEP_ISSUES", "so tired", "no sleep", "something else")))
    answers = model.predict(rows)
    assert answers["threshold"].tolist() == [0.25, 0.75, 0.25, 0.75, 0.25]
    assert (answers["met"] == (answers["probability"] >= answers["threshold"])).all()
    assert set(model.predict(rows, params={"threshold": 0.6})["threshold"]) == {0.6}
    agent.decision = MetDecision()
    odds = mlflow.pyfunc.load_model(log_model(agent, data, run_id=run_id).uri).predict(rows)["probability"].map(_logit)
    np.testing.assert_allclose(answers["probability"].map(_logit), odds / 2, rtol=1e-4, atol=1e-5)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.usefixtures("store")
def test_top_k_spans_are_a_json_list(encoder: str, data: Any, run_id: str) -> None:
    decoding: Any = {"top_k": 3, "overlap": 0.0, "max_answer_tokens": 4, "null_policy": "none"}
    model = mlflow.pyfunc.load_model(log_model(EvidenceAgent(encoder, decoding=decoding), data, run_id=run_id).uri)
    answers = model.predict(_rows(("FATIGUE", LONG_POST)))
    assert model.metadata.signature.outputs.input_names() == list(answers)
    assert list(answers) == ["start", "end", "text", "score", "null", "answers", "free_text", "problem"]
    first, *further = json.loads(answers["answers"][0])
    assert first == answers[["start", "end", "score", "text"]].iloc[0].to_dict()
    assert len(further) == 2
    assert all(span["text"] == LONG_POST[span["start"] : span["end"]] for span in further)
    assert all(
        one["end"] <= other["start"] or other["end"] <= one["start"] for one, other in pairwise([first, *further])
    )


@pytest.mark.usefixtures("store")
def test_non_finite_logits_raise(encoder: str, data: Any, run_id: str) -> None:
    agent = EvidenceAgent(encoder)
    nn.init.constant_(agent.network.head.layers[-1].bias, float("nan"))  # type: ignore[index, union-attr]
    model = mlflow.pyfunc.load_model(log_model(agent, data, run_id=run_id).uri)
    with pytest.raises(Exception, match=r"^the logits are NaN or infinite, so the model has no answer"):
        model.predict(_rows(("FATIGUE", "i am so tired")))


@pytest.mark.usefixtures("store")
def test_torch_module_equals_network(agent: Any, data: Any, run_id: str) -> None:
    network = mlflow.pytorch.load_model(log_model(agent, data, run_id=run_id).uri)
    agent.eval()
    for batch, length in ((1, 5), (3, 16), (7, 64)):
        ids = torch.randint(4, 12, (batch, length), generator=torch.Generator().manual_seed(length))
        inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids))
        torch.testing.assert_close(network(*inputs), agent.network(*inputs))


@pytest.mark.usefixtures("store")
def test_model_holds_weights_once_without_pickle(agent: Any, data: Any, run_id: str) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(log_model(agent, data, run_id=run_id).uri))
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert {"MLmodel", "data/model.pt2", "data/texts/serving.json", "data/texts/tokenizer/tokenizer.json"} <= files
    assert not {Path(name).suffix for name in files} & {".pkl", ".pth", ".bin", ".ckpt", ".safetensors"}
    assert sum("model.pt2" in name for name in files) == 1
    example = (folder / "input_example.json").read_text()
    assert "FATIGUE" in example


def test_model_is_linked_to_its_run(agent: Any, data: Any, store: tuple[str, str], run_id: str) -> None:
    uri = log_model(agent, data, run_id=run_id, tracking_uri=store[0], step=2).uri
    outputs = MlflowClient(store[0]).get_run(run_id).outputs
    assert outputs is not None
    (output,) = outputs.model_outputs
    assert uri == f"models:/{output.model_id}"
    assert output.step == 2
    version = MlflowClient(store[0])
    version.create_registered_model(f"{agent.agent}-{run_id}")
    version.create_model_version(f"{agent.agent}-{run_id}", uri, run_id=run_id)
    assert (
        mlflow.pyfunc.load_model(f"models:/{agent.agent}-{run_id}/1").predict(_rows(("FATIGUE", "tired"))).shape[0] == 1
    )


@pytest.mark.usefixtures("store")
def test_logging_does_not_change_the_agent_or_print(
    agent: Any, data: Any, run_id: str, capfd: pytest.CaptureFixture[str]
) -> None:
    agent.train()
    agent.network.head.eval()
    before = [(name, part.training) for name, part in agent.named_modules()]
    weights = {name: value.clone() for name, value in agent.state_dict().items()}
    log_model(agent, data, run_id=run_id)
    assert [(name, part.training) for name, part in agent.named_modules()] == before
    torch.testing.assert_close(agent.state_dict(), weights)
    assert all(parameter.requires_grad for parameter in agent.network.parameters())
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("store")
def test_agent_without_data_module_is_refused(agent: Any, run_id: str) -> None:
    with pytest.raises(LightningHpoError, match="got no data module; pass the data module that trained it"):
        log_model(agent, None, run_id=run_id)


class _Custom(LightningModule):
    def __init__(self, example: Any, forward: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.example_input_array = example
        self.change = forward

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.layer(features)
        return self.change(result) if self.change else result


@pytest.mark.usefixtures("store")
def test_custom_module_is_logged_with_its_example_input(run_id: str) -> None:
    module = _Custom(torch.zeros(2, 3))
    network = mlflow.pytorch.load_model(log_model(module, run_id=run_id).uri)
    features = torch.from_numpy(np.arange(15, dtype=np.float32).reshape(5, 3))
    torch.testing.assert_close(network(features), module(features))


@pytest.mark.usefixtures("store")
def test_custom_module_with_trainer_is_logged(run_id: str, tmp_path: Path) -> None:
    module = _Custom(torch.zeros(2, 3))
    module.trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
    network = mlflow.pytorch.load_model(log_model(module, run_id=run_id).uri)
    assert network(torch.zeros(4, 3)).shape == (4, 2)


@pytest.mark.usefixtures("store")
def test_custom_module_without_example_input_is_refused(run_id: str) -> None:
    with pytest.raises(
        LightningHpoError, match=r"_Custom cannot be logged as a model: it has no `example_input_array`"
    ):
        log_model(_Custom(None), run_id=run_id)


@pytest.mark.usefixtures("store")
def test_module_that_torch_cannot_export_is_refused(run_id: str) -> None:
    def depends(values: Tensor) -> Tensor:
        return values if values.sum() > 0 else -values

    with pytest.raises(LightningHpoError, match=r"_Custom cannot be logged as a model: torch.export raised"):
        log_model(_Custom(torch.zeros(2, 3), depends), run_id=run_id)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("top_k", [1, 3])
def test_served_answers_snap_to_the_sentences_of_predict_step(
    top_k: int, encoder: str, run_id: str, tmp_path: Path
) -> None:
    posts = {"a": "i am so tired. no more sleep today! the dog is fine", "b": "so tired", "c": f"no sleep. {LONG_POST}"}
    pd.DataFrame(posts.items(), columns=["post_id", "text"]).to_csv(tmp_path / "posts.csv", index=False)
    data = EvidenceDataModule(posts=str(tmp_path / "posts.csv"), tokenizer=encoder, max_length=64, stride=8)
    data.setup("predict")
    decoding: Any = {"snap": "sentence", "null_policy": "none", "max_answer_tokens": 3, "top_k": top_k}
    torch.manual_seed(1)
    agent = EvidenceAgent(encoder, decoding=decoding)
    agent.eval()
    expected = [answer for batch in data.predict_dataloader() for answer in agent.predict_step(batch)]
    rows = _rows(*((answer["criterion"], posts[answer["post_id"]]) for answer in expected))
    answers = mlflow.pyfunc.load_model(log_model(agent, data, run_id=run_id).uri).predict(rows)
    bounds = {post: sentence_ranges(text) for post, text in posts.items()}
    for answer, wanted in zip(answers.to_dict("records"), expected, strict=True):
        assert (answer["start"], answer["end"]) == (wanted["start"], wanted["end"])
        starts, ends = zip(*bounds[wanted["post_id"]], strict=True)
        assert answer["start"] in starts
        assert answer["end"] in ends
    if top_k > 1:
        several = [[(span["start"], span["end"]) for span in json.loads(row)] for row in answers["answers"]]
        assert all(len(set(spans)) == len(spans) for spans in several)
        assert {len(spans) for spans in several} > {1}  # the post with one sentence has one answer
