"""Tests of the base class, with both agents."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent, JointAgent
from lightning_hpo.agents.network.heads import CriteriaHead
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule, JointDataModule
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.data.labels import WindowTarget
from lightning_hpo.exceptions import InputError, NotFiniteError

Batches = list[dict[str, Any]]
Loader = Callable[[Batches], Any]
MakeTrainer = Callable[..., Trainer]

pytestmark = [
    # raised by torch when Lightning moves a batch
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    # one process is enough for batches in memory
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.fixture(params=[CriteriaAgent, EvidenceAgent])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_agent_learns_and_predicts_the_same_after_loading(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    agent = kind(encoder_folder, optim={"lr": 5e-3}, head={"hidden": 16})
    fitting = trainer(max_epochs=5, gradient_clip_val=1.0)
    fitting.fit(agent, loader(training_batches), loader(eval_batches))
    logged = fitting.callback_metrics
    assert logged["val_metric"] > 0.75
    assert logged["val_constant"] == 0
    assert logged["unaugmentable"] == 1 / 16
    assert logged["augmented"] == 0.25
    assert {"train_loss", "val_loss", "val_positive"} <= set(logged)
    fitting.save_checkpoint(tmp_path / "agent.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "agent.ckpt", weights_only=True)
    (scores,) = trainer().validate(again, loader(eval_batches), verbose=False)
    assert scores["val_metric"] == logged["val_metric"]
    assert trainer().predict(again, loader(eval_batches)) == trainer().predict(agent, loader(eval_batches))


class _Augmenting(LightningDataModule):
    """Batches with an augmented share."""

    def __init__(self, training: Batches, evaluation: Batches, aug: Augmentation, share: float) -> None:
        super().__init__()
        self.aug = aug
        self._training = [{**each, "augmented": torch.arange(16) < share * 16} for each in training]
        self._evaluation = evaluation

    def train_dataloader(self) -> Any:
        return DataLoader(self._training, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(self._evaluation, batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("enabled", "share"), [(True, 0.25), (False, 0.0), (True, 0.0)])
def test_augmentation_without_effect_fails_the_training(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    trainer: MakeTrainer,
    enabled: bool,
    share: float,
) -> None:
    data = _Augmenting(training_batches[:3], eval_batches[:1], Augmentation(enabled, p_apply=0.5), share)
    fitting = trainer(max_epochs=1)
    refused = pytest.raises(InputError, match=r"changed none of the 48 samples of the epoch with --aug\.p_apply 0\.5")
    with refused if enabled and not share else nullcontext():
        fitting.fit(kind(encoder_folder), data)
    assert fitting.callback_metrics.get("augmented", share) == share


def test_weights_only_checkpoint_has_no_training_state(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    agent = kind(encoder_folder)
    fitting = trainer(max_epochs=1)
    fitting.fit(agent, loader(training_batches[:1]), loader(eval_batches[:1]))
    for name, weights_only in (("weights", True), ("whole", False)):
        fitting.save_checkpoint(tmp_path / name, weights_only=weights_only)
        assert ("train_means" in torch.load(tmp_path / name, weights_only=True)) is not weights_only
    assert {name.split(".")[0] for name in agent.state_dict()} == {"network"}


def test_hyperparameters_are_plain_values(kind: Any, encoder_folder: str) -> None:
    plain = kind(encoder_folder, optim={"lr": 1e-3}).hparams
    assert plain["optim"]["lr"] == 1e-3
    assert {type(value) for value in plain.values()} <= {str, int, bool, float, dict, type(None)}


def test_last_layers_are_reinitialized_with_the_seed(kind: Any, encoder_folder: str) -> None:
    def layer(seed: int, count: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        layers = kind(encoder_folder, reinit_layers=count).network.encoder.encoder.layer
        return {
            f"{place}.{name}": value for place, own in enumerate(layers) for name, value in own.state_dict().items()
        }

    kept, new, other = layer(0, 0), layer(0, 1), layer(1, 1)
    weights = [name for name in kept if name.endswith("dense.weight")]
    for name in weights:
        assert torch.equal(kept[name], new[name]) is name.startswith("0.")
        assert torch.equal(new[name], other[name]) is name.startswith("0.")


def test_reinitialized_layers_that_adapters_do_not_train_are_refused(kind: Any, encoder_folder: str) -> None:
    line = "--model.reinit_layers: got 1 with --model.lora.r 4, which does not train re-initialized weights"
    values = {"reinit_layers": 1, "lora": {"r": 4}}
    with pytest.raises(InputError, match=f"^{line}; use 0$"):
        kind(encoder_folder, **values)
    assert kind.flag_problems({"name": "nowhere", **values}) == [f"{line}; use 0"]


def test_four_bit_weights_are_refused_where_they_cannot_be_trained(
    kind: Any, encoder_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    values = {"quantize": "4bit", "lora": {"r": 4}}
    [line] = [line for line in kind.flag_problems({"name": "nowhere", **values}) if "GPU" in line]
    assert line == "--model.quantize: got 4bit, which needs an NVIDIA GPU; use none"
    with pytest.raises(InputError, match=r"--model.quantize: got 4bit, which needs an NVIDIA GPU; use none"):
        kind(encoder_folder, **values)


def test_all_invalid_flags_are_reported_at_once(kind: Any, encoder_folder: str) -> None:
    with pytest.raises(InputError) as caught:
        kind(encoder_folder, dropout=2, attention_dropout=-1, freeze_layers=-1, optim={"lr": 0}, head={"layers": -1})
    flags = [line.split(":")[0] for line in caught.value.problems]
    assert flags == [
        "--model.dropout",
        "--model.attention_dropout",
        "--model.freeze_layers",
        "--model.optim.lr",
        "--model.head.layers",
    ]


def test_flags_are_checked_without_an_encoder_and_in_subclasses_with_kwargs(kind: Any) -> None:
    class Passing(kind):  # type: ignore[misc]
        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(name, **kwargs)

    values = {"name": "nowhere", "dropout": None, "freeze_layers": -1, "optim": {"lr": 0}, "head": {"layers": -1}}
    for agent in (kind, Passing):
        flags = {line.split(":")[0] for line in agent.flag_problems(values)}
        assert flags == {"--model.freeze_layers", "--model.optim.lr", "--model.head.layers"}
        assert agent.flag_problems({"name": "nowhere"}) == []


def test_agent_with_an_unavailable_optimizer_validates_but_does_not_train(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    optim = {"name": "adamw_8bit"}
    agent = kind(encoder_folder, optim=optim)
    (scores,) = trainer().validate(agent, loader(eval_batches[:1]), verbose=False)
    assert "val_metric" in scores
    with pytest.raises(InputError, match=r"--model.optim.name: got adamw_8bit, which needs an NVIDIA GPU"):
        trainer(max_epochs=1).fit(agent, loader(training_batches[:1]), loader(eval_batches[:1]))
    (problem,) = kind.flag_problems({"name": "nowhere", "optim": optim})
    assert problem.startswith("--model.optim.name: got adamw_8bit, which needs an NVIDIA GPU")


class _StopsAfter(Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


@pytest.mark.parametrize(
    "settings",
    [
        {"optim": {"name": "adamw", "lr": 1e-3}},
        {"optim": {"name": "lion", "lr": 1e-3}},
        {"optim": {"name": "adafactor", "lr": 1e-3}},
        {"lora": {"r": 4, "dropout": 0.0}, "gradient_checkpointing": True},
    ],
)
def test_resumed_training_matches_one_without_a_stop(
    settings: dict[str, Any],
    encoder_folder: str,
    training_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    def fitted(*callbacks: Callback, path: Path | None = None) -> Trainer:
        torch.manual_seed(0)
        agent: Any = CriteriaAgent
        fixed = {"dropout": 0.0, "attention_dropout": 0.0, "head": {"dropout": 0.0}}
        fitting = trainer(max_epochs=3, limit_val_batches=0, callbacks=list(callbacks))
        batches = loader(training_batches[:3])
        fitting.fit(agent(encoder_folder, **fixed, **settings), batches, batches, ckpt_path=path, weights_only=True)
        return fitting

    whole = fitted()
    fitted(_StopsAfter(1)).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = fitted(path=tmp_path / "stopped.ckpt")
    assert resumed.global_step == whole.global_step == 9
    weights = [fitting.lightning_module.state_dict() for fitting in (resumed, whole)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.parametrize("part", ["train", "val"])
def test_non_finite_loss_fails_the_training(
    kind: Any,
    part: str,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
) -> None:
    agent = kind(encoder_folder)
    nn.init.constant_(agent.network.head.layers[-1].bias, float("nan"))
    fitting = trainer(max_epochs=1, num_sanity_val_steps=0 if part == "train" else 1)
    with pytest.raises(NotFiniteError, match=f"{part}_loss is not finite in epoch 0, by step 0"):
        fitting.fit(agent, loader(training_batches), loader(eval_batches))


class _Rates(Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2}, 20),
        ({"max_epochs": 2, "limit_train_batches": 4}, 8),
        ({"max_epochs": 2, "accumulate_grad_batches": 4}, 6),
        ({"max_epochs": 5, "max_steps": 7}, 7),
        ({"fast_dev_run": 2}, 2),
    ],
)
def test_schedule_ends_with_the_training(
    options: dict[str, int],
    steps: int,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
) -> None:
    agent = CriteriaAgent(encoder_folder, optim={"lr": 1e-3}, schedule={"warmup": 0.0})
    seen = _Rates()
    fitting = trainer(callbacks=[seen], **options)
    fitting.fit(agent, loader(training_batches[:10]), loader(eval_batches[:1]))
    assert fitting.global_step == steps
    rates = sorted(set(seen.rates), reverse=True)
    assert rates == pytest.approx([1e-3 * (1 - step / steps) for step in range(steps)])
    assert fitting.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)


def test_schedule_needs_an_end(
    encoder_folder: str, training_batches: Batches, eval_batches: Batches, loader: Loader, trainer: MakeTrainer
) -> None:
    with pytest.raises(InputError, match=r"--trainer.max_epochs, --trainer.max_steps: neither is set"):
        trainer(max_epochs=-1).fit(CriteriaAgent(encoder_folder), loader(training_batches), loader(eval_batches))


class _Modes(Callback):
    """Records whether dropout is active."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, set[bool]]] = []

    def on_train_batch_start(self, _: Trainer, pl_module: LightningModule, *__: object) -> None:
        self._record("train", pl_module)

    def on_validation_batch_start(self, _: Trainer, pl_module: LightningModule, *__: object) -> None:
        self._record("val", pl_module)

    def _record(self, part: str, agent: LightningModule) -> None:
        dropouts = {module.training for module in agent.modules() if isinstance(module, nn.Dropout)}
        self.seen.append((part, dropouts))


def test_dropout_is_active_in_training_only(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    trainer: MakeTrainer,
    loader: Loader,
) -> None:
    modes = _Modes()
    fitting = trainer(max_epochs=2, num_sanity_val_steps=0, callbacks=[modes])
    fitting.fit(kind(encoder_folder, dropout=0.3), loader(training_batches[:1]), loader(eval_batches[:1]))
    assert modes.seen == [("train", {True}), ("val", {False})] * 2


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_gradients_can_be_clipped_at_low_precision(
    precision: str,
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
) -> None:
    fitting = trainer(max_epochs=1, precision=precision, gradient_clip_val=0.5)
    fitting.fit(kind(encoder_folder), loader(training_batches[:2]), loader(eval_batches[:1]))
    assert torch.isfinite(fitting.callback_metrics["val_loss"])


class _Counted(LightningDataModule):
    """Batches with unbalanced class counts."""

    class_counts = (300, 100)

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches

    def train_dataloader(self) -> Any:
        return DataLoader(self._batches, batch_size=None)  # type: ignore[arg-type]


def test_classes_are_balanced_by_the_counts_of_the_data_module(
    kind: Any, encoder_folder: str, training_batches: Batches, trainer: MakeTrainer
) -> None:
    no_dropout: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "head": {"dropout": 0.0}}
    agent = kind(encoder_folder, loss={"balance": "weighted"}, **no_dropout)
    (batch,) = batches = training_batches[:1]
    losses, counted = agent.window_losses(agent(batch), batch)
    wanted = (losses * torch.where(agent.positive_windows(batch), 2.0, 2 / 3)).sum() / counted.sum()
    fitting = trainer(max_epochs=1, limit_val_batches=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You defined a `validation_step`")
        fitting.fit(agent, datamodule=_Counted(batches))
    torch.testing.assert_close(fitting.callback_metrics["train_loss"], wanted.detach())


def test_balancing_without_class_counts_is_refused(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
) -> None:
    agent = kind(encoder_folder, loss={"balance": "effective_number"})
    with pytest.raises(InputError, match=r"--model.loss.balance: got effective_number, but .* no class_counts"):
        trainer(max_epochs=1).fit(agent, loader(training_batches), loader(eval_batches))


def test_adapters_are_restored_from_a_checkpoint(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    agent = kind(encoder_folder, lora={"r": 4}, optim={"lr": 1e-2})
    fitting = trainer(max_epochs=1)
    fitting.fit(agent, loader(training_batches[:3]), loader(eval_batches[:1]))
    fitting.save_checkpoint(tmp_path / "agent.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "agent.ckpt", weights_only=True)
    (scores,) = trainer().validate(again, loader(eval_batches[:1]), verbose=False)
    assert scores["val_loss"] == fitting.callback_metrics["val_loss"]
    served, batch = again.served_network, training_batches[0]
    assert not any("lora" in name for name in served.state_dict())
    inputs = [batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    torch.testing.assert_close(served.eval()(*inputs), again.network.eval()(*inputs))


def test_only_the_network_of_the_agent_can_be_trained(kind: Any, encoder_folder: str) -> None:
    agent = kind(encoder_folder)
    agent.network = nn.Identity()
    with pytest.raises(TypeError, match="a Identity cannot be trained"):
        agent.configure_optimizers()


def test_compiled_training_matches(
    kind: Any,
    encoder_folder: str,
    training_batches: Batches,
    eval_batches: Batches,
    loader: Loader,
    trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through: list[int] = []
    compiled = torch.compile

    def counting(forward: Any, **options: Any) -> Any:
        # The eager backend traces like the default one, but skips the slow compilation.
        traced: Any = compiled(forward, backend="eager", **options)

        def run(*inputs: Any) -> Any:
            through.append(len(inputs))
            return traced(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", counting)
    weights, keys = [], []
    for wanted in (False, True):
        torch.manual_seed(0)
        agent = kind(encoder_folder, dropout=0.0, attention_dropout=0.0, compile=wanted, head={"dropout": 0.0})
        trainer(max_epochs=1).fit(agent, loader(training_batches[:4]), loader(eval_batches[:1]))
        weights.append(agent.network.state_dict())
        keys.append(list(agent.state_dict()))
    assert len(through) == 4
    assert keys[0] == keys[1]
    torch.testing.assert_close(weights[0], weights[1])


def test_last_step_of_an_epoch_is_the_mean_of_the_batches_that_it_has(
    encoder_folder: str, trainer: MakeTrainer, loader: Loader, training_batches: Batches, eval_batches: Batches
) -> None:
    class Gradients(Callback):
        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
            self.seen.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))

    def steps(batches: Batches, accumulated: int) -> list[torch.Tensor]:
        recording = Gradients()
        torch.manual_seed(0)
        agent = CriteriaAgent(
            encoder_folder, dropout=0.0, attention_dropout=0.0, head=CriteriaHead(dropout=0.0), optim=Optim(lr=1e-12)
        )
        made = trainer(max_epochs=1, accumulate_grad_batches=accumulated, limit_val_batches=0, callbacks=[recording])
        made.fit(agent, loader(batches), loader(eval_batches))
        return recording.seen

    whole, rest = steps(training_batches[:6], 4)
    torch.testing.assert_close([whole], steps(training_batches[:4], 4))
    torch.testing.assert_close([rest], steps(training_batches[4:6], 2), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "model", "data", "problem"),
    [
        (CriteriaAgent, {}, CriteriaDataModule, ""),
        (CriteriaAgent, {"form": "one_pass"}, JointDataModule, ""),
        (JointAgent, {}, JointDataModule, ""),
        (JointAgent, {}, CriteriaDataModule, "which has no labels for JointAgent; use JointDataModule"),
        (CriteriaAgent, {}, EvidenceDataModule, "which has no labels for CriteriaAgent; use CriteriaDataModule"),
        (EvidenceAgent, {}, CriteriaDataModule, "which has no labels for EvidenceAgent; use EvidenceDataModule"),
        (
            CriteriaAgent,
            {"form": "one_pass"},
            CriteriaDataModule,
            "in the form pairs, but CriteriaAgent reads the form one_pass; use CriteriaDataModule, without --data.form",
        ),
        (
            EvidenceAgent,
            {},
            JointDataModule,
            "in the form one_pass, but EvidenceAgent reads the form pairs; use EvidenceDataModule, without --data.form",
        ),
    ],
)
def test_data_that_the_agent_cannot_read_are_refused(
    kind: Any, model: Any, data: Any, problem: str, encoder_folder: str, trainer: Any
) -> None:
    agent = kind(encoder_folder, **model)
    agent.trainer = trainer()
    agent.trainer.datamodule = data(posts="posts.csv", tokenizer=encoder_folder)
    if not problem:
        agent.setup("fit")
        return
    with pytest.raises(InputError) as caught:
        agent.setup("fit")
    assert str(caught.value).replace(", which", " which") == f"--data: got {data.__name__} {problem}"


def test_labels_are_those_of_the_batches() -> None:
    targets = [WindowTarget(1, ((0, 1),)), WindowTarget(0)]
    for data in (CriteriaDataModule, EvidenceDataModule, JointDataModule):
        assert set(data.labels(targets, [1, 1])) == data.LABELS
