"""Exact resume of the real agents on the demo corpus: their training state is what a checkpoint has to hold."""

import contextlib
import os
import random
import signal
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
from lightning_hpo.callbacks import resume_checkpoint
from lightning_hpo.callbacks.checkpoint_files import is_whole
from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint
from lightning_hpo.callbacks.random_state import RandomState
from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint, find_checkpoint
from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from lightning_hpo.data import Augmentation, CriteriaDataModule, EvidenceDataModule
from lightning_hpo.data.batching import Draw, TrainBatchSampler
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.train_loader import TrainLoader
from lightning_hpo.study_folder import BEST, LAST, PREVIOUS
from tests.callbacks.conftest import Terminator
from tests.foreign import ForeignData, ForeignModule
from tests.hub import write_hub

pytestmark = [
    pytest.mark.usefixtures("restored_signal_handler"),
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers",
        "ignore:.*resuming from a checkpoint that ended before the epoch ended",
        "ignore:.*multi-threaded, use of fork.*",
    ),
]

MakeTrainer = Callable[..., Trainer]

_MODULES: dict[Any, Any] = {CriteriaAgent: CriteriaDataModule, EvidenceAgent: EvidenceDataModule}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads only cost time with tensors this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and an encoder for it."""
    folder = tmp_path_factory.mktemp("demo")
    corpus = DemoCorpus(24, 17)
    corpus.write(folder)
    write_hub(folder / "hub", corpus.texts())
    (snapshot,) = (folder / "hub/models--roberta-base/snapshots").iterdir()
    (folder / "encoder").symlink_to(snapshot)
    return folder


class _Metrics(Callback):
    """Keeps the metrics of each epoch."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, str]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        values = {name: repr(float(value)) for name, value in trainer.callback_metrics.items()}  # NaN equals NaN
        self.seen[trainer.current_epoch] = values


class _Training:
    """Trainings of one agent in one folder. Each starts with new objects, as a new process would."""

    def __init__(self, kind: Any, demo: Path, folder: Path, make_trainer: MakeTrainer) -> None:
        self.kind, self.demo, self.folder, self.make_trainer = kind, demo, folder, make_trainer

    def run(
        self, *, seed: int, stop_at: tuple[str, int, int] | None = None, workers: int = 0, **options: Any
    ) -> tuple[dict[str, Tensor], dict[int, dict[str, str]], list[tuple[str, int, int]]]:
        """Train from the checkpoint in the folder; return weights, metrics and batches."""
        for generator in (random.seed, np.random.seed, torch.manual_seed):
            generator(seed)
        agent = self.kind(
            str(self.demo / "encoder"),
            dropout=0.3,
            attention_dropout=0.2,
            optim={"lr": 1e-3},
            schedule={"name": "cosine", "warmup": 0.3},
        )
        data = _MODULES[self.kind](
            **{name: str(self.demo / file) for name, file in _FILES.items()},
            max_length=64,
            stride=16,
            batch_size=8 if self.kind is EvidenceAgent else 32,
            num_workers=workers,
            aug=Augmentation(enabled=True, p_apply=0.5),
        )
        stop, metrics, batches = StopRequest(), _Metrics(), Terminator(*(stop_at or ("nowhere", 0, 0)))
        stop.listen()
        resume = ResumeCheckpoint(self.folder, stop)
        trainer = self.make_trainer(
            callbacks=[RandomState(), stop, metrics, batches, resume],
            max_epochs=3,
            enable_checkpointing=True,
            gradient_clip_val=1.0,
            **options,
        )
        checkpoint, _ = find_checkpoint(self.folder)
        if stop_at is None:
            trainer.fit(agent, data, ckpt_path=checkpoint, weights_only=True)
        else:
            with pytest.raises(StopRequestedError):
                trainer.fit(agent, data, ckpt_path=checkpoint, weights_only=True)
        return {**agent.state_dict()}, metrics.seen, batches.seen


_FILES = {
    "posts": "posts.csv",
    "annotations": "annotations.csv",
    "criteria": "criteria.yaml",
    "tokenizer": "encoder",
}


@pytest.mark.parametrize("kind", [CriteriaAgent, EvidenceAgent])
@pytest.mark.parametrize(
    ("workers", "options"), [(0, {}), (2, {"accumulate_grad_batches": 2}), (0, {"max_steps": 1000})]
)
def test_agent_stopped_within_an_epoch_equals_an_uninterrupted_one(
    kind: Any, workers: int, options: dict[str, Any], demo: Path, tmp_path: Path, quiet_trainer: MakeTrainer
) -> None:
    through = _Training(kind, demo, tmp_path / "through", quiet_trainer)
    weights, metrics, batches = through.run(seed=3, **options)
    parts = _Training(kind, demo, tmp_path / "parts", quiet_trainer)
    *_, first = parts.run(seed=3, stop_at=("train", 1, 1), **options)
    *_, second = parts.run(seed=4, workers=workers, stop_at=("train", 1, 3), **options)
    own_weights, own_metrics, third = parts.run(seed=5, workers=workers, **options)
    assert first + second + third == batches
    assert own_metrics == {epoch: metrics[epoch] for epoch in (1, 2)}
    assert {"train_loss", "augmented", "val_metric"} <= own_metrics[1].keys()
    assert own_weights.keys() == weights.keys()
    assert all(torch.equal(own_weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(("workers", "options"), [(0, {}), (2, {}), (0, {"max_steps": 1000})])
def test_agent_stopped_in_validation_resumes_with_this_validation(
    workers: int, options: dict[str, Any], demo: Path, tmp_path: Path, quiet_trainer: MakeTrainer
) -> None:
    through = _Training(EvidenceAgent, demo, tmp_path / "through", quiet_trainer)
    weights, metrics, batches = through.run(seed=3, **options)
    parts = _Training(EvidenceAgent, demo, tmp_path / "parts", quiet_trainer)
    *_, first = parts.run(seed=3, workers=workers, stop_at=("validation", 1, 0), **options)
    own_weights, own_metrics, second = parts.run(seed=4, workers=workers, **options)
    assert first[:-1] + second == batches
    assert own_metrics == {epoch: metrics[epoch] for epoch in (1, 2)}
    assert all(torch.equal(own_weights[name], weights[name]) for name in weights)


class _Rows(Dataset[list[Tensor]]):
    def __getitem__(self, draws: list[Draw]) -> list[Tensor]:
        rows = torch.tensor([[draw.index / 40, draw.epoch / 4] for draw in draws])
        return [rows, rows.sum(dim=1, keepdim=True)]


class _Placed(ForeignData):
    """Five batches per epoch, different in each, from a loader that can save its position."""

    def train_dataloader(self) -> DataLoader[Any]:
        sampler = TrainBatchSampler(np.arange(40).take, windows=40, kept=np.arange(10), drawn=10, batch_size=4, seed=1)
        return TrainLoader(_Rows(), sampler)


class _Endless(_Placed):
    """The same batches, from a loader without a length."""

    def train_dataloader(self) -> Any:
        return _WithoutLength(super().train_dataloader())


class _WithoutLength:
    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    def __iter__(self) -> Any:
        return iter(self.loader)


class _Shuffled(ForeignData):
    """Batches in another order in each epoch, without a position; validation draws from the global generator."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(super().train_dataloader().dataset, batch_size=self.batch_size, shuffle=True)


class _AlsoStateful(ForeignData):
    def __init__(self) -> None:
        super().__init__(placed=True)


class _SanityTerminator(Callback):
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class _Asking(ForeignModule):
    """Reads `estimated_stepping_batches`, which makes Lightning lose the position of the loader."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)]


class _Waiting(ForeignModule):
    """Lowers the learning rate after an epoch that was no better."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_metric", torch.tensor(0.5))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_metric"}}


class _NoMemory(Callback):
    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (1, self.batch):
            raise torch.OutOfMemoryError("injected")


class _Fit:
    """Trainings of a small module in one folder. Each starts with new objects, as a new process would."""

    def __init__(self, folder: Path, make_trainer: MakeTrainer) -> None:
        self.folder, self.make_trainer = folder, make_trainer
        self.notice = ""

    def __call__(
        self,
        module: type[ForeignModule] = ForeignModule,
        *,
        data: type[ForeignData] = _Placed,
        stop_at: tuple[str, int, int] | None = None,
        every_s: float = 3600.0,
        more: Sequence[Callback] = (),
        **options: Any,
    ) -> tuple[list[Tensor], list[tuple[str, int, int]]]:
        """Train from the checkpoint in the folder, to the end or a stop; return weights and batches."""
        torch.manual_seed(3)
        made = module()
        stop, batches = StopRequest(), Terminator(*(stop_at or ("nowhere", 0, 0)))
        stop.listen()
        resume = ResumeCheckpoint(self.folder, stop, every_s)
        trainer = self.make_trainer(
            callbacks=[RandomState(), stop, batches, *more, resume],
            enable_checkpointing=True,
            **{"max_epochs": 3, **options},
        )
        checkpoint, self.notice = find_checkpoint(self.folder)
        with contextlib.suppress(StopRequestedError, torch.OutOfMemoryError, _Killed):
            trainer.fit(made, data(), ckpt_path=checkpoint, weights_only=True)
        return [weight.detach().clone() for weight in made.parameters()], batches.seen

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class _Killed(BaseException):
    """Stands for a kill: no code catches it."""


@pytest.fixture
def fit(tmp_path: Path, quiet_trainer: MakeTrainer) -> _Fit:
    return _Fit(tmp_path / "fit", quiet_trainer)


@pytest.fixture
def through(tmp_path: Path, quiet_trainer: MakeTrainer) -> _Fit:
    return _Fit(tmp_path / "through", quiet_trainer)


@pytest.mark.parametrize("module", [ForeignModule, _Asking, _Waiting])
def test_module_resumes_where_it_stopped_with_any_schedule(
    module: type[ForeignModule], fit: _Fit, through: _Fit
) -> None:
    weights, batches = through(module)
    _, first = fit(module, stop_at=("train", 1, 2))
    own_weights, second = fit(module)
    assert first + second == batches
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))


class _Logging(ForeignModule):
    """Logs in each way that an epoch sums up."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.mean.update(loss.detach())
        self.log("train_mean", self.mean, on_step=False, on_epoch=True)
        for reduce in ("min", "max", "sum"):
            self.log(f"train_{reduce}", loss, on_step=True, on_epoch=True, reduce_fx=reduce)
        return loss


@pytest.mark.parametrize("at", [("train", 1, 2), ("train", 1, 4), ("validation", 1, 0)], ids=str)
def test_values_of_an_epoch_cover_the_batches_before_a_stop(fit: _Fit, through: _Fit, at: tuple[str, int, int]) -> None:
    whole, part = _Metrics(), _Metrics()
    through(_Logging, more=[whole])
    fit(_Logging, stop_at=at)
    fit(_Logging, more=[part])
    assert part.seen == {epoch: whole.seen[epoch] for epoch in (1, 2)}


def test_state_is_saved_within_epochs_when_due(fit: _Fit, through: _Fit) -> None:
    weights, batches = through()
    _, first = fit(every_s=0.0, more=[_KillAt(1, 3)])
    assert fit.files() == ["last.ckpt", "previous.ckpt"]
    own_weights, second = fit()
    assert second[0] == ("train", 1, 3)
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))
    assert first[: first.index(("train", 1, 3))] + second == batches


class _KillAt(Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.place = (epoch, batch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.place:
            raise _Killed


def test_loader_without_state_resumes_from_the_end_of_an_epoch(fit: _Fit, through: _Fit) -> None:
    weights, _ = through(data=ForeignData)
    _, first = fit(data=ForeignData, stop_at=("train", 1, 2), every_s=0.0)
    assert first[-1] == ("train", 1, 2)
    own_weights, second = fit(data=ForeignData)
    assert second[0] == ("train", 1, 0)
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))


def test_batches_fetched_ahead_are_not_lost(fit: _Fit) -> None:
    _, first = fit(data=_Endless, stop_at=("train", 1, 2), every_s=0.0)
    assert first[-1] == ("train", 1, 2)
    _, second = fit(data=_Endless)
    assert second[0] == ("train", 1, 0)


def test_stop_waits_for_accumulated_gradients(fit: _Fit) -> None:
    _, first = fit(stop_at=("train", 1, 0), accumulate_grad_batches=3)
    assert first[-1] == ("train", 1, 2)
    _, second = fit(accumulate_grad_batches=3)
    assert second[0] == ("train", 1, 3)


def test_stop_waits_a_limited_time(fit: _Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_checkpoint, "_PATIENCE_S", 0.0)
    _, first = fit(stop_at=("train", 1, 0), accumulate_grad_batches=3)
    assert first[-1] == ("train", 1, 0)
    _, second = fit(accumulate_grad_batches=3)
    assert second[0] == ("train", 1, 0)


@pytest.mark.parametrize(
    ("data", "options", "at"),
    [
        (_Placed, {}, ("train", 1, 4)),
        (_Placed, {}, ("validation", 0, 0)),
        (_Placed, {}, ("validation", 2, 3)),
        (_Placed, {"max_steps": 1000}, ("validation", 1, 3)),
        (_Placed, {"accumulate_grad_batches": 3}, ("validation", 1, 1)),
        (_Placed, {"val_check_interval": 2}, ("train", 1, 1)),
        (_Placed, {"val_check_interval": 2}, ("validation", 1, 1)),
        (_Placed, {"val_check_interval": 3, "check_val_every_n_epoch": None}, ("validation", 1, 0)),
        (ForeignData, {}, ("train", 1, 3)),
        (ForeignData, {}, ("validation", 1, 2)),
        (_Shuffled, {}, ("validation", 1, 2)),
        (_Endless, {}, ("validation", 1, 2)),
        (_AlsoStateful, {}, ("validation", 1, 2)),
    ],
    ids=str,
)
def test_stop_before_or_in_a_validation_resumes_with_this_validation(
    fit: _Fit, through: _Fit, data: Any, options: dict[str, Any], at: tuple[str, int, int]
) -> None:
    weights, batches = through(_Logging, data=data, more=[whole := _Metrics()], **options)
    _, first = fit(_Logging, data=data, stop_at=at, **options)
    own_weights, second = fit(_Logging, data=data, more=[part := _Metrics()], **options)
    assert first[-1] == at
    assert second[0] == ("validation", at[1], 0)
    begun = first.index(second[0], first.index(("train", at[1], 0))) if at[0] == "validation" else len(first)
    assert first[:begun] + second == batches
    assert part.seen == {epoch: whole.seen[epoch] for epoch in range(at[1], 3)}
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))


def test_stop_in_a_validation_of_other_weights_resumes_before_it(fit: _Fit, through: _Fit) -> None:
    weights, _ = through(more=[EMAWeightAveraging(decay=0.5)])
    fit(stop_at=("validation", 1, 1), more=[EMAWeightAveraging(decay=0.5)])
    own_weights, batches = fit(more=[EMAWeightAveraging(decay=0.5)])
    assert batches[0] == ("train", 1, 0)
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))


def test_stop_in_a_validation_at_a_time_resumes_before_it(fit: _Fit) -> None:
    timed: dict[str, Any] = {"val_check_interval": timedelta(microseconds=1), "check_val_every_n_epoch": None}
    fit(stop_at=("validation", 1, 1), **timed)
    assert fit(**timed)[1][0] == ("train", 1, 0)


def test_stop_in_the_sanity_check_saves_nothing(fit: _Fit) -> None:
    fit.folder.mkdir()
    fit(more=[_SanityTerminator()])
    assert fit.files() == []


def test_stop_at_the_end_of_an_epoch_without_validation_loses_nothing(fit: _Fit, through: _Fit) -> None:
    weights, batches = through(check_val_every_n_epoch=3)
    _, first = fit(stop_at=("train", 0, 4), check_val_every_n_epoch=3)
    own_weights, second = fit(check_val_every_n_epoch=3)
    assert first + second == batches
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))


def test_training_that_stopped_early_is_not_continued(fit: _Fit) -> None:
    def patience() -> EarlyStopping:
        return EarlyStopping("val_metric", mode="max", patience=1)

    _, batches = fit(_Waiting, more=[patience()], max_epochs=9)
    assert batches[-1][1] == 1
    assert fit(_Waiting, more=[patience()], max_epochs=9)[1] == []


def test_out_of_memory_keeps_only_the_end_of_an_epoch(fit: _Fit) -> None:
    fit(every_s=0.0, more=[_NoMemory(2)])
    assert fit.files() == ["previous.ckpt"]
    assert fit(stop_at=("train", 1, 3))[1][0] == ("train", 1, 0)
    # A checkpoint of an earlier process is removed, too.
    fit(more=[_NoMemory(4)])
    assert fit.files() == ["previous.ckpt"]


@pytest.mark.parametrize(
    ("datamodule", "kept"), [(SimpleNamespace(eval_batch_size=8), True), (SimpleNamespace(), False), (None, False)]
)
def test_out_of_memory_in_a_validation_with_its_own_batches_keeps_all(
    tmp_path: Path, datamodule: Any, kept: bool
) -> None:
    checkpoint = ResumeCheckpoint(tmp_path, StopRequest())
    checkpoint._within_epoch = True
    (tmp_path / "last.ckpt").touch()
    trainer: Any = SimpleNamespace(validating=True, datamodule=datamodule)
    checkpoint.on_exception(trainer, LightningModule(), torch.OutOfMemoryError("injected"))
    assert (tmp_path / "last.ckpt").exists() == kept


def test_fast_dev_run_leaves_no_file(fit: _Fit) -> None:
    fit.folder.mkdir()
    fit(every_s=0.0, fast_dev_run=True)
    assert fit.files() == []


# While the end of an epoch is saved: half written, written, the old file renamed.
@pytest.mark.parametrize("instant", ["save", "fsync", "replace 0", "replace 1"])
def test_kill_at_any_moment_leaves_a_whole_checkpoint(
    instant: str, fit: _Fit, through: _Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, _ = through()
    fit(stop_at=("train", 1, 0))
    fit(more=[_KillAt(2, 0)])  # last.ckpt and previous.ckpt are both from the end of an epoch
    assert fit.files() == ["last.ckpt", "previous.ckpt"]
    with monkeypatch.context() as patch:
        _kill_at(instant, patch)
        fit()
    own_weights, batches = fit()
    assert batches[0] == ("train", 2, 0)
    assert fit.notice == ("resumes from the end of an epoch: last.ckpt is missing" if instant == "replace 1" else "")
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))
    assert fit.files() == ["last.ckpt", "previous.ckpt"]


def _kill_at(instant: str, patch: pytest.MonkeyPatch) -> None:
    def save(_: Any, file: Any) -> None:
        file.write(b"PK")
        raise _Killed

    def killed(*_: Any) -> None:
        raise _Killed

    if instant == "save":
        patch.setattr(torch, "save", save)
    elif instant == "fsync":
        patch.setattr(os, "fsync", killed)
    else:
        renames, rename = iter(range(9)), Path.replace

        def replace(path: Path, target: Path) -> Path:
            if next(renames) == int(instant.split()[1]):
                raise _Killed
            return rename(path, target)

        patch.setattr(Path, "replace", replace)


def _flip(path: Path) -> None:
    """Change a byte in the middle of a tensor; torch still loads the file."""
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 30 + len(largest.filename) + largest.file_size] ^= 255
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_flip, _cut, lambda path: path.write_bytes(b"")])
def test_damaged_checkpoint_is_removed_with_a_notice(damage: Callable[[Path], None], fit: _Fit, through: _Fit) -> None:
    weights, _ = through()
    fit(stop_at=("train", 1, 2))
    damage(fit.folder / LAST)
    fit(stop_at=("train", 1, 2))
    assert fit.notice == "resumes from the end of an epoch: last.ckpt is damaged"
    for name in (LAST, PREVIOUS):
        damage(fit.folder / name)
    own_weights, batches = fit()
    assert fit.notice == "starts from the first epoch: damaged last.ckpt and previous.ckpt"
    assert batches[0] == ("train", 0, 0)
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))


@pytest.mark.parametrize("damage", [_flip, _cut, lambda path: path.write_bytes(b""), Path.unlink])
def test_checkpoint_without_the_weights_of_its_best_epoch_is_not_used(
    damage: Callable[[Path], None], fit: _Fit, through: _Fit
) -> None:
    def best(folder: Path) -> MLflowModelCheckpoint:
        return MLflowModelCheckpoint(folder, "val_metric", wanted=lambda value: False)

    weights, _ = through(more=[best(through.folder)])
    fit(stop_at=("train", 2, 0), more=[best(fit.folder)])
    assert fit.files() == [BEST, LAST, PREVIOUS]
    damage(fit.folder / BEST)
    (fit.folder / f"{BEST}.partial").touch()
    own_weights, batches = fit(more=[best(fit.folder)])
    what = "damaged best.ckpt" if damage is not Path.unlink else "best.ckpt is missing"
    assert fit.notice == f"starts from the first epoch: {what}"
    assert batches[0] == ("train", 0, 0)
    assert all(torch.equal(own, other) for own, other in zip(own_weights, weights, strict=True))
    assert fit.files() == [BEST, LAST, PREVIOUS]
    assert is_whole(fit.folder / BEST)
