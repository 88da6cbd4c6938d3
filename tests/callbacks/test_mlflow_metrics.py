import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics
from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint
from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from lightning_hpo.exceptions import NotFiniteError
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from tests.callbacks.conftest import Fit, Terminator
from tests.foreign import ForeignData, ForeignModule


@pytest.fixture
def metrics(outbox: Outbox) -> MLflowMetrics:
    return MLflowMetrics(outbox, "val_metric")


def _history(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in tracker.client.get_metric_history(run_id, name))


def test_each_epoch_is_a_step(fit: Fit, metrics: MLflowMetrics, tracker: Tracker, run_id: str) -> None:
    fit([0.25, 0.5, 0.375], [metrics])
    assert _history(tracker, run_id, "val_metric") == [(0, 0.25), (1, 0.5), (2, 0.375)]
    assert _history(tracker, run_id, "scripted_loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert _history(tracker, run_id, "epoch") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert _history(tracker, run_id, "lr") == [(0, 0.1), (1, 0.1), (2, 0.1)]
    for name in ("samples_per_s", "peak_memory_mib"):
        assert [step for step, value in _history(tracker, run_id, name) if 0 < value < math.inf] == [0, 1, 2]


def test_resumed_trial_writes_no_step_twice(
    fit: Fit, tracker: Tracker, run_id: str, outbox: Outbox, tmp_path: Path
) -> None:
    def kept() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)

    # The trial crashes after epoch 2 is written, and resumes from the checkpoint of epoch 0.
    fit([0.25, 0.5, 0.375], [MLflowMetrics(outbox, "val_metric"), kept()])
    values = [0.25, 0.5, 0.375, 0.625]
    callbacks = [MLflowMetrics(outbox, "val_metric"), kept()]
    fit(values, callbacks, ckpt_path=tmp_path / "kept" / "epoch=0.ckpt")
    assert _history(tracker, run_id, "val_metric") == list(enumerate(values))
    assert [step for step, _ in _history(tracker, run_id, "train_loss")] == [0, 1, 2, 3]


def test_clock_starts_again_in_a_resumed_epoch(
    quiet_trainer: Callable[..., Trainer], metrics: MLflowMetrics, tracker: Tracker, run_id: str, tmp_path: Path
) -> None:
    def written() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)

    data = ForeignData(placed=True)
    quiet_trainer(callbacks=[written()], max_epochs=1).fit(ForeignModule(), data)
    began = time.monotonic()
    trainer = quiet_trainer(callbacks=[metrics, written()], max_epochs=1)
    trainer.fit(ForeignModule(), data, ckpt_path=tmp_path / "step=3.ckpt", weights_only=True)
    [(_, rate)] = _history(tracker, run_id, "samples_per_s")
    assert rate > 16 / (time.monotonic() - began)


@pytest.mark.usefixtures("restored_signal_handler")
@pytest.mark.parametrize("at", [("validation", 1, 2), ("train", 1, 3), ("train", 2, 1)], ids=str)
@pytest.mark.parametrize("validated", [1, 2])
def test_stopped_epoch_has_the_metrics_of_an_uninterrupted_one(
    fit: Fit, tracker: Tracker, run_id: str, outbox: Outbox, tmp_path: Path, at: tuple[str, int, int], validated: int
) -> None:
    values, last = [0.25, 0.5, 0.375, 0.625], tmp_path / "kept" / "last.ckpt"

    def trained(*callbacks: Callback, ckpt_path: Path | None = None) -> None:
        (stop := StopRequest()).listen()
        own = [stop, MLflowMetrics(outbox, "val_metric"), *callbacks, ResumeCheckpoint(tmp_path / "kept", stop)]
        fit(values, own, ckpt_path=ckpt_path, check_val_every_n_epoch=validated)

    with pytest.raises(StopRequestedError):
        trained(Terminator(*at))
    trained(ckpt_path=last)
    steps = list(range(4))
    assert _history(tracker, run_id, "val_metric") == [*enumerate(values)][validated - 1 :: validated]
    assert [step for step, _ in _history(tracker, run_id, "train_loss")] == steps
    rates = _history(tracker, run_id, "samples_per_s")
    assert [step for step, rate in rates if 0 < rate < math.inf] == steps


def test_monitor_that_is_not_finite_is_an_error(
    fit: Fit, metrics: MLflowMetrics, tracker: Tracker, run_id: str
) -> None:
    with pytest.raises(NotFiniteError, match=r"^val_metric is inf at epoch 1$"):
        fit([0.25, math.inf, 0.5], [metrics])
    assert tracker.logged_steps(run_id, "epoch") == {0}


def test_train_loss_that_is_not_finite_is_an_error(fit: Fit, outbox: Outbox) -> None:
    # Another monitor, so that only the loss can raise.
    with pytest.raises(NotFiniteError, match=r"^train_loss is nan at epoch 0$"):
        fit([0.25, 0.5], [MLflowMetrics(outbox, "other")], module=ForeignModule(diverges=True))


def test_other_metrics_may_be_nan(fit: Fit, tracker: Tracker, run_id: str, outbox: Outbox) -> None:
    fit([math.nan], [MLflowMetrics(outbox, "scripted_loss")])
    assert tracker.logged_steps(run_id, "epoch") == {0}
