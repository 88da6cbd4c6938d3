"""Optuna's pruning, after every validated epoch."""

from typing import Protocol

from lightning.pytorch import LightningModule, Trainer
from optuna_integration import PyTorchLightningPruningCallback

from lightning_hpo.exceptions import InputError

__all__ = ["PruningCallback", "ReportingTrial"]


class ReportingTrial(Protocol):
    """What is asked of a trial: Optuna's own, or another process's."""

    def report(self, value: float, step: int) -> None:
        """Report a value."""

    def should_prune(self) -> bool:
        """Whether the pruner says stop."""


class PruningCallback(PyTorchLightningPruningCallback):  # type: ignore[misc]  # its package has no types
    """Reports the monitored metric to Optuna and raises `TrialPruned` when the pruner says stop.

    It differs from its parent in two ways: a monitor that is never logged is an error, where the parent warns and never
    prunes; and it decides at the end of the training epoch, so that the pruned epoch's metrics are recorded before.

    Args:
        trial: The trial that trains.
        monitor: Name of the logged metric.

    Raises:
        InputError: After the first validation, if the monitor is not among the logged metrics.
    """

    def __init__(self, trial: ReportingTrial, monitor: str) -> None:
        super().__init__(trial, monitor)
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that there is a new value."""
        del pl_module
        self._validated = not trainer.sanity_checking
        if self._validated and self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise InputError(f"--study.monitor: {self.monitor!r} is never logged; logged are: {logged}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the value, and stop the trial if it is to be pruned."""
        if self._validated:
            self._validated = False
            super().on_validation_end(trainer, pl_module)
