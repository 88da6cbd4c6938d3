"""Pruning by Optuna after every validation."""

from typing import Protocol

import optuna
from lightning.pytorch import LightningModule, Trainer
from optuna_integration import PyTorchLightningPruningCallback

from lightning_hpo.callbacks.validation_steps import at_epoch_end, step_of_validation
from lightning_hpo.exceptions import InputError

__all__ = ["PruningCallback", "ReportingTrial"]


class ReportingTrial(Protocol):
    """Interface of a trial: `optuna.Trial`, or a trial whose study is in another process."""

    def report(self, value: float, step: int) -> None:
        """Report a value."""

    def should_prune(self) -> bool:
        """Return the decision of the pruner."""


class PruningCallback(PyTorchLightningPruningCallback):  # type: ignore[misc]  # its package has no types
    """Reports the monitored metric to Optuna, and raises `optuna.TrialPruned` if the pruner decides so.

    It differs from its parent in three ways:

    - A monitor that is never logged is an error. The parent warns and never prunes.
    - After the last batch of an epoch, it decides at the end of the train epoch, so that the metrics of the pruned
      epoch are logged before.
    - Several validations in an epoch are reported as several steps (see `step_of_validation`). The parent reports all
      of them as one step, of which Optuna keeps the first.

    `tune` adds it to every trial. It needs a trial, so under `fit` it has no use. In your own objective function, put
    it into the Trainer together with `MLflowModelCheckpoint`:

    ```python
    def objective(trial: optuna.Trial) -> float:
        agent = CriteriaAgent(encoder, optim={"lr": trial.suggest_float("lr", 1e-5, 1e-3, log=True)})
        logger = MLFlowLogger("my-study", tracking_uri="sqlite:///mlflow.db", run_name=f"trial_{trial.number}")
        best = MLflowModelCheckpoint(f"outputs/trial_{trial.number}")
        trainer = Trainer(max_epochs=10, logger=logger, callbacks=[PruningCallback(trial, "val_metric"), best])
        try:
            trainer.fit(agent, data)
        except optuna.TrialPruned:
            # Lightning ends the run as FAILED on any exception.
            logger.experiment.set_terminated(logger.run_id, "KILLED")
            raise
        return best.best_value
    ```

    Args:
        trial: The trial that trains.
        monitor: Name of the logged metric.

    Raises:
        InputError: After the first validation, if the monitor is not among the logged metrics.
    """

    def __init__(self, trial: ReportingTrial, monitor: str) -> None:
        super().__init__(trial, monitor)
        self._step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the monitor has a value. Within an epoch, report it, and raise if the trial is to be pruned."""
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise InputError(f"--study.monitor: {self.monitor!r} is never logged; metrics: {logged}")
        self._step = step_of_validation(trainer)
        if not at_epoch_end(trainer):
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the value of a validation after the last batch, and raise if the trial is to be pruned."""
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        if self._step is None:
            return
        step, self._step = self._step, None
        self._trial.report(float(trainer.callback_metrics[self.monitor]), step=step)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"Trial was pruned at step {step}.")
