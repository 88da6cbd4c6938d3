"""Metrics of each epoch, written to MLflow at once."""

import math
import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.exceptions import NotFiniteError
from lightning_hpo.tracking.outbox import LogMetrics, Outbox

__all__ = ["MLflowMetrics"]


class MLflowMetrics(Callback):
    """Logs the metrics of each epoch to one MLflow run, with the epoch as step.

    It adds these metrics to those of the module:

    - `epoch`, and `lr` of the first parameter group.
    - `samples_per_s`: training samples per second, without the time for validation.
    - `peak_memory_mib`: of the GPU, or of the process if there is no GPU.
    - `startup_s`, with the first epoch: seconds from Optuna's `ask` to the first batch.

    Args:
        outbox: Outbox of the trial. A step that it holds already is not written again.
        monitor: Name of the monitored metric.
        asked: Unix time of Optuna's `ask`; without it, `startup_s` is not logged.

    Raises:
        NotFiniteError: If the monitored metric or the training loss is NaN or infinite.
    """

    def __init__(self, outbox: Outbox, monitor: str, asked: float | None = None) -> None:
        self._outbox = outbox
        self._monitor = monitor
        self._asked = asked
        self._startup: dict[str, float] = {}
        self._logged: set[int] = set()
        self._samples = 0
        self._started = self._seconds = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read which epochs the outbox holds already."""
        self._logged = self._outbox.steps("epoch")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the startup, and start the clock: `on_train_epoch_start` is not called for a resumed epoch."""
        self.on_train_epoch_start(trainer, pl_module)
        if self._asked is not None and not self._logged:
            self._startup = {"startup_s": time.time() - self._asked}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._samples = 0
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count samples; stop the clock after the last batch, before validation."""
        self._samples += _batch_size(batch)
        if batch_idx + 1 == trainer.num_training_batches:
            self._seconds = time.monotonic() - self._started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that monitor and loss are finite, and write the metrics of the epoch."""
        epoch = trainer.current_epoch
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        for key in (self._monitor, "train_loss"):
            if key in metrics and not math.isfinite(metrics[key]):
                raise NotFiniteError(f"{key} is {metrics[key]} at epoch {epoch}")
        if epoch in self._logged:
            return
        seconds = self._seconds or time.monotonic() - self._started
        metrics |= {"epoch": float(epoch), "samples_per_s": self._samples / max(seconds, 1e-9)}
        metrics |= {"lr": trainer.optimizers[0].param_groups[0]["lr"]} if trainer.optimizers else {}
        metrics |= {"peak_memory_mib": _peak_memory_mib()}
        self._outbox.write(LogMetrics(metrics | self._startup, step=epoch))
        self._startup = {}


def _batch_size(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return next((len(part) for part in parts if isinstance(part, torch.Tensor) and part.ndim), 0)


def _peak_memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
