"""Callback that saves the best epoch and logs its model to MLflow."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from lightning_hpo.callbacks.checkpoint_files import durable_checkpoints, load_weights
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.study_folder import BEST, OUTPUTS
from lightning_hpo.tracking.tracker import AWAY

__all__ = ["MLflowModelCheckpoint", "weights_of"]

_log = logging.getLogger(__name__)


class MLflowModelCheckpoint(ModelCheckpoint):
    """Saves weights and outputs of the best epoch, and logs its model to MLflow when training has finished.

    It compares each epoch with the best so far, also after a resume. MLflow's own callback compares with the last epoch
    and can overwrite the best (mlflow issue 12981).

    Args:
        dirpath: Folder of `best.ckpt`. Default: Lightning's checkpoint folder, in that of the logger or in
            `default_root_dir`.
        monitor: Metric that decides which epoch is best.
        mode: "max" or "min".
        tracking_uri: MLflow's database or server; default: that of the Trainer's MLFlowLogger.
        run_id: Run of the model, or a function that returns it after training; default: that of the Trainer's
            MLFlowLogger.
        wanted: Called with the best value after training; returns whether to log the model. Default: always.

    Attributes:
        model_uri: MLflow's URI of the logged model; None until it is logged.
        problem: Reason why the model could not be logged; empty if there is none.
        best_epoch: Epoch of the best value.
        best_metrics: All metrics that were logged with the best value.

    Raises:
        LightningHpoError: If there is neither an MLFlowLogger nor `run_id` with `tracking_uri`. Raised when `fit`
            starts, or, with `wanted`, when the model is logged.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        monitor: str = "val_metric",
        mode: str = "max",
        *,
        tracking_uri: str | None = None,
        run_id: str | Callable[[], str | None] | None = None,
        wanted: Callable[[float], bool] | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=Path(BEST).stem,
            monitor=monitor,
            mode=mode,
            save_weights_only=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._tracking_uri = tracking_uri
        self._run_id = run_id
        self._wanted = wanted
        self.model_uri: str | None = None
        self.model_seal: str | None = None
        self.problem = ""
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}

    @property
    def best_value(self) -> float | None:
        """Best value of the monitor so far."""
        return None if self.best_model_score is None else float(self.best_model_score)

    def state_dict(self) -> dict[str, Any]:
        """Return the parent's state, and the best epoch with its metrics."""
        return {**super().state_dict(), "best_epoch": self.best_epoch, "best_metrics": self.best_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value and its epoch."""
        self.best_epoch, self.best_metrics = state_dict["best_epoch"], state_dict["best_metrics"]
        super().load_state_dict(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check before training that there is a run for the model."""
        if stage == "fit" and self._wanted is None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._run(trainer)
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch if it is the best, and keep its number and metrics."""
        before = self.best_value
        with durable_checkpoints(trainer):
            super().on_validation_end(trainer, pl_module)
        if self.best_value != before:
            self.best_epoch = trainer.current_epoch
            self.best_metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
            outputs = getattr(pl_module, "pair_outputs", None)
            if outputs is not None:
                outputs().save(Path(self.best_model_path).with_name(OUTPUTS))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the model of the best epoch if it is wanted; warn if that fails."""
        if self.best_value is None or (self._wanted is not None and not self._wanted(self.best_value)):
            return
        # Imported here, because MLflow's torch support takes seconds to import. Few processes need it.
        from lightning_hpo.serving.flavor import log_model

        tracking_uri, run_id = self._run(trainer)
        with weights_of(Path(self.best_model_path), pl_module):
            try:
                self.model_uri, self.model_seal = log_model(
                    pl_module,
                    trainer.datamodule,  # type: ignore[attr-defined]
                    run_id=run_id,
                    tracking_uri=tracking_uri,
                )
            except LightningHpoError as error:
                self.problem = str(error).splitlines()[0]
            except AWAY as error:
                # The weights are in the folder, so the model can still be logged when it is registered.
                self.problem = f"model not logged: MLflow did not accept it ({type(error).__name__})"
        if self.problem:
            _log.warning("MLflowModelCheckpoint: %s", self.problem)

    def _run(self, trainer: Trainer) -> tuple[str, str]:
        """Return the tracking URI and the id of the run that gets the model."""
        run_id = self._run_id() if callable(self._run_id) else self._run_id
        if self._tracking_uri is not None and run_id is not None:
            return self._tracking_uri, run_id
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger) and logger.run_id is not None:
                return str(logger.experiment.tracking_uri), logger.run_id
        raise LightningHpoError(
            "MLflowModelCheckpoint: no run to log the model to; give the Trainer an MLFlowLogger, or the callback "
            "tracking_uri and run_id"
        )


@contextmanager
def weights_of(checkpoint: Path, module: LightningModule) -> Iterator[None]:
    """Load the weights of a checkpoint into the module, and restore its own at the end."""
    own = {key: value.detach().clone() for key, value in module.state_dict().items()}
    module.load_state_dict(load_weights(checkpoint))
    try:
        yield
    finally:
        module.load_state_dict(own)
