"""Progress of a trial during training, for the display of the study process."""

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["ProgressReport"]


class ProgressReport(Callback):
    """Reports the progress of the training, at most a hundred times an epoch.

    Args:
        report: Called with the epoch (from 0), the number of epochs (None or -1 without limit), the finished share of
            the epoch, and the monitored metric or None.
        monitor: Name of the monitored metric.
    """

    def __init__(self, report: Callable[[int, int | None, float, float | None], None], monitor: str) -> None:
        self._report = report
        self._monitor = monitor
        self._metric: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the finished share of the epoch."""
        batches = trainer.num_training_batches
        # The number is infinite for a loader without a length. Then only the end of the epoch is reported.
        if math.isfinite(batches) and batch_idx % math.ceil(batches / 100) == 0:
            self._send(trainer, batch_idx / batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric of the epoch."""
        self._read(trainer)
        self._send(trainer, 1.0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the metric."""
        self._read(trainer)

    def _read(self, trainer: Trainer) -> None:
        """Read the metric, once a validation: reading a number from a GPU waits for the GPU."""
        metric = trainer.callback_metrics.get(self._monitor)
        self._metric = None if metric is None else float(metric)

    def _send(self, trainer: Trainer, share: float) -> None:
        self._report(trainer.current_epoch, trainer.max_epochs, share, self._metric)
