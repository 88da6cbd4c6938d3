"""Metrics of each epoch and of each validation, written to MLflow at once."""

import math
import resource
import sys
import time
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.callbacks.validation_steps import at_epoch_end, step_of_epoch_end, step_of_validation
from lightning_hpo.config.lightning_private import restarts_in_validation
from lightning_hpo.exceptions import NotFiniteError
from lightning_hpo.tracking.entries import Entry, LogMetrics

__all__ = ["MLflowMetrics"]


class Entries(Protocol):
    """Entries of a trial for MLflow, as `Outbox` and `RemoteTrial` offer them."""

    def write(self, entry: Entry) -> None:
        """Write an entry; on return it is on the disk."""

    def steps(self, metric: str) -> set[int]:
        """Return the steps of a metric that have been written."""


class MLflowMetrics(Callback):
    """Logs the metrics of each epoch to one MLflow run, with the epoch as step.

    With several validations in an epoch, each is a step (see `step_of_validation`). The training metrics are logged
    with the last of them. A metric of the validation is not logged again for an epoch without a validation.

    It adds these metrics to those of the module:

    - `epoch`, and `lr` of the first parameter group.
    - `samples_per_s`: training samples per second, without the time for validation.
    - `peak_memory_mib`: of the GPU, or of the process if there is no GPU.
    - `startup_s`, with the first epoch: seconds from Optuna's `ask` to the first batch.

    Args:
        entries: Entries of the trial. A step that they hold already is not written again.
        monitor: Name of the monitored metric.
        asked: Unix time of Optuna's `ask`; without it, `startup_s` is not logged.

    Raises:
        NotFiniteError: If the monitored metric or the training loss is NaN or infinite.
    """

    def __init__(self, entries: Entries, monitor: str, asked: float | None = None) -> None:
        self._entries = entries
        self._monitor = monitor
        self._asked = asked
        self._startup: dict[str, float] = {}
        self._logged: set[int] = set()
        self._ended: set[int] = set()
        self._before: dict[str, Any] = {}
        self._validation: set[str] = set()
        self._last: int | None = None  # step of the last validation in this epoch
        self._at_end = False  # whether that was after the last batch
        self._samples = 0
        self._started = self._seconds = self._validating = 0.0
        self._rate: float | None = None
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the samples and seconds of the unfinished epoch, and the names of the validation's metrics."""
        if self._restored is not None:
            return self._restored
        elapsed = self._seconds or time.monotonic() - self._started
        validation = sorted(self._validation)
        return {"samples": self._samples, "elapsed": elapsed, "validation": validation, "rate": self._rate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training resumes."""
        self._restored = state_dict

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read which steps have been written already."""
        self._logged, self._ended = self._entries.steps("epoch"), self._entries.steps("samples_per_s")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the startup, and start the clock: `on_train_epoch_start` is not called for a resumed epoch."""
        self.on_train_epoch_start(trainer, pl_module)
        if self._restored is not None:
            self._samples, elapsed = self._restored["samples"], self._restored["elapsed"]
            self._rate = self._restored.get("rate")  # version 0.1.0 has none
            self._started, self._validation = self._started - elapsed, set(self._restored["validation"])
            self._seconds = elapsed if restarts_in_validation(trainer) and at_epoch_end(trainer) else 0.0
            self._restored = None
        if self._asked is not None and not self._logged:
            self._startup = {"startup_s": time.time() - self._asked}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._samples, self._seconds = 0, 0.0
        self._started = time.monotonic()
        self._last, self._at_end = None, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the learning rate of the step: the highest, since lower layers may have lower ones."""
        rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self._rate = max(rates, default=None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count samples; stop the clock after the last batch, before validation."""
        self._samples += _batch_size(batch)
        if batch_idx + 1 == trainer.num_training_batches:
            self._seconds = time.monotonic() - self._started

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metrics, to know afterwards which of them the validation has logged."""
        self._before = dict(trainer.callback_metrics)
        self._validating = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Within an epoch, check that the monitor is finite, and write the metrics of the validation."""
        if trainer.sanity_checking:
            return
        new = {key: value for key, value in trainer.callback_metrics.items() if value is not self._before.get(key)}
        self._validation |= set(new)
        self._last, self._at_end = step_of_validation(trainer), at_epoch_end(trainer)
        if self._at_end:
            return
        self._started += time.monotonic() - self._validating
        self._require_finite(trainer, self._monitor)
        self._write(self._last, {key: float(value) for key, value in new.items()}, trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that monitor and loss are finite, and write the metrics of the epoch."""
        for key in (self._monitor, "train_loss"):
            self._require_finite(trainer, key)
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        step = step_of_epoch_end(trainer) if self._last is None else self._last
        if not self._at_end:
            metrics = {key: value for key, value in metrics.items() if key not in self._validation}
        if step in self._ended:
            return
        self._ended.add(step)
        seconds = self._seconds or time.monotonic() - self._started
        metrics |= {"samples_per_s": self._samples / max(seconds, 1e-9)}
        metrics |= {} if self._rate is None else {"lr": self._rate}
        metrics |= {"peak_memory_mib": _peak_memory_mib()}
        self._write(step, metrics | self._startup, trainer, again=True)
        self._startup = {}

    def _require_finite(self, trainer: Trainer, key: str) -> None:
        value = float(trainer.callback_metrics.get(key, 0.0))
        if not math.isfinite(value):
            raise NotFiniteError(f"{key} is {value} at epoch {trainer.current_epoch}")

    def _write(self, step: int, metrics: dict[str, float], trainer: Trainer, *, again: bool = False) -> None:
        """Write metrics, with the epoch unless this step has it. A step is written a second time only on request."""
        if step not in self._logged:
            self._logged.add(step)
            self._entries.write(LogMetrics(metrics | {"epoch": float(trainer.current_epoch)}, step=step))
        elif again:
            self._entries.write(LogMetrics(metrics, step=step))


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
