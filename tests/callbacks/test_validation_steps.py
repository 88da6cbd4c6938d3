"""Several validations in an epoch: both databases store each of them, under the same step."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_hpo.callbacks import MLflowMetrics, MLflowModelCheckpoint, PruningCallback
from lightning_hpo.callbacks.validation_steps import step_of_validation
from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.messages import Report, ShouldPrune
from tests.foreign import ForeignData, ForeignModule

BATCHES = 4  # of an epoch of `ForeignData`


class Rising(ForeignModule):
    """Logs as `val_metric` the number of trained batches, but for a peak after two."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        del batch, batch_idx
        trained = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self.log("val_metric", torch.tensor(100.0 if trained == 2 else float(trained)))


class Steps(Callback):
    """Lists the step of each validation with the number of trained batches."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if not trainer.sanity_checking:
            self.seen.append((trainer.fit_loop.epoch_loop.batch_progress.total.ready, step_of_validation(trainer)))


class StopAfter(Callback):
    """Stops the training after some batches."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        del pl_module, outputs, batch, batch_idx
        trainer.should_stop = trainer.fit_loop.epoch_loop.batch_progress.total.ready >= self._batches


class CrashAt(Callback):
    """Raises an exception at the start of a batch."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        del pl_module, batch, batch_idx
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready > self._batch:
            raise RuntimeError("planted")


class Served:
    """The trial as a trial process sees it: a report that is repeated after a crash is not stored twice."""

    def __init__(self, server: TrialServer) -> None:
        self._server = server

    def report(self, value: float, step: int) -> None:
        self._server.answer(Report(value, step))

    def should_prune(self) -> bool:
        return bool(self._server.answer(ShouldPrune()))


class Study:
    """One trial with all callbacks that record values."""

    def __init__(self, quiet_trainer: Any, study: optuna.Study, outbox: Outbox, folder: Path) -> None:
        self.trial = Served(TrialServer(study, study.ask(), lambda value: False, outbox))
        self._outbox, self._make, self._folder = outbox, quiet_trainer, folder
        self._study = study

    def fit(self, *further: Callback, checkpoint: Path | None = None, **options: Any) -> MLflowModelCheckpoint:
        best = MLflowModelCheckpoint(self._folder, wanted=lambda value: False)
        callbacks = [MLflowMetrics(self._outbox, "val_metric"), PruningCallback(self.trial, "val_metric"), best]
        trainer = self._make(callbacks=[*callbacks, *further], **options)
        trainer.fit(Rising(), ForeignData(placed=True), ckpt_path=checkpoint, weights_only=True)
        return best

    @property
    def reported(self) -> dict[int, float]:
        return self._study.trials[0].intermediate_values


@pytest.fixture
def one_trial(quiet_trainer: Any, study: optuna.Study, outbox: Outbox, tmp_path: Path) -> Study:
    return Study(quiet_trainer, study, outbox, tmp_path / "best")


def _history(tracker: Tracker, run_id: str, name: str) -> dict[int, float]:
    points = tracker.client.get_metric_history(run_id, name)
    assert len({point.step for point in points}) == len(points)
    return {point.step: point.value for point in points}


@pytest.mark.parametrize("interval", [0.5, 2])
def test_value_of_a_trial_is_in_both_histories(
    one_trial: Study, tracker: Tracker, run_id: str, interval: float
) -> None:
    best = one_trial.fit(max_epochs=2, val_check_interval=interval)
    assert one_trial.reported == {0: 100.0, 1: 4.0, 2: 6.0, 3: 8.0}
    assert _history(tracker, run_id, "val_metric") == one_trial.reported
    assert (best.best_value, best.best_epoch) == (100.0, 0)
    assert _history(tracker, run_id, "epoch") == {0: 0.0, 1: 0.0, 2: 1.0, 3: 1.0}
    # The training metrics of an epoch stand with its last validation.
    assert list(_history(tracker, run_id, "train_loss")) == list(_history(tracker, run_id, "samples_per_s")) == [1, 3]


def test_interval_that_does_not_divide_the_epoch(one_trial: Study, tracker: Tracker, run_id: str) -> None:
    one_trial.fit(max_epochs=2, val_check_interval=3)
    assert one_trial.reported == _history(tracker, run_id, "val_metric") == {0: 3.0, 1: 7.0}
    assert list(_history(tracker, run_id, "train_loss")) == [0, 1]


def test_epoch_without_a_validation_repeats_no_value(one_trial: Study, tracker: Tracker, run_id: str) -> None:
    one_trial.fit(max_epochs=5, check_val_every_n_epoch=2)
    assert one_trial.reported == _history(tracker, run_id, "val_metric") == {1: 8.0, 3: 16.0}
    assert list(_history(tracker, run_id, "train_loss")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("interval", "expected"), [(1.0, {0: 4.0, 1: 7.0}), (0.5, {0: 100.0, 1: 4.0, 2: 6.0, 3: 7.0})])
def test_validation_of_a_training_that_is_stopped_within_an_epoch(
    one_trial: Study, tracker: Tracker, run_id: str, interval: float, expected: dict[int, float]
) -> None:
    # Lightning validates once more when a callback stops the training.
    one_trial.fit(StopAfter(7), max_epochs=2, val_check_interval=interval)
    assert one_trial.reported == _history(tracker, run_id, "val_metric") == expected
    assert max(_history(tracker, run_id, "train_loss")) == max(expected)


@pytest.mark.parametrize("batches", [1, 2, 3, 6])
def test_training_resumed_within_an_epoch_stores_the_same_values(
    one_trial: Study, tracker: Tracker, run_id: str, tmp_path: Path, batches: int
) -> None:
    def kept() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "kept", filename="{step}", every_n_train_steps=1, save_top_k=-1)

    # The first attempt stores more than the checkpoint that the second one resumes from.
    with pytest.raises(RuntimeError, match="planted"):
        one_trial.fit(kept(), CrashAt(7), max_epochs=2, val_check_interval=0.5)
    checkpoint = tmp_path / "kept" / f"step={batches}.ckpt"
    one_trial.fit(kept(), max_epochs=2, val_check_interval=0.5, checkpoint=checkpoint)
    assert one_trial.reported == _history(tracker, run_id, "val_metric") == {0: 100.0, 1: 4.0, 2: 6.0, 3: 8.0}
    assert list(_history(tracker, run_id, "train_loss")) == [1, 3]


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, [(4, 0), (8, 1), (12, 2)]),
        ({"val_check_interval": 0.25}, [(batch, batch - 1) for batch in range(1, 13)]),
        ({"val_check_interval": 0.5, "check_val_every_n_epoch": 2}, [(6, 2), (8, 3)]),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, [(5, 0), (10, 1)]),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, [(4, 0), (8, 1), (12, 2)]),
    ],
)
def test_step_follows_from_the_position(
    quiet_trainer: Any, options: dict[str, Any], seen: list[tuple[int, int]]
) -> None:
    steps = Steps()
    quiet_trainer(callbacks=[steps], max_epochs=3, **options).fit(ForeignModule(), ForeignData())
    assert steps.seen == seen
