"""The best epoch of a trial: its weights on disk, and its model in MLflow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.study_folder import BEST
from lightning_hpo.tracking.tracker import AWAY

__all__ = ["MLflowModelCheckpoint"]


class MLflowModelCheckpoint(ModelCheckpoint):
    """Keeps the best epoch's weights, and logs them as a model once training has ended well.

    A checkpoint of MLflow's own callback follows the last epoch and can overwrite the best one (mlflow#12981); here the
    best one is compared with the best so far, also across a resume.

    Args:
        dirpath: Folder of `best.ckpt`.
        monitor: Metric that decides which epoch is best.
        mode: "max" or "min".
        tracking_uri: MLflow's database or server; by default that of the Trainer's MLFlowLogger.
        run_id: The run that gets the model; by default that of the Trainer's MLFlowLogger.
        wanted: Asked with the best value at the end of training whether to log the model; without it, it is logged.

    Attributes:
        model_uri: MLflow's URI of the logged model; None as long as none is logged.
        problem: Why the model could not be logged; empty if it could.
        best_epoch: Epoch of the best value.
        best_metrics: Every metric that was logged with the best value.
    """

    def __init__(
        self,
        dirpath: str | Path,
        monitor: str = "val_metric",
        mode: str = "max",
        *,
        tracking_uri: str | None = None,
        run_id: str | None = None,
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
        self.problem = ""
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}

    @property
    def best_value(self) -> float | None:
        """The best value of the monitor so far."""
        return None if self.best_model_score is None else float(self.best_model_score)

    def state_dict(self) -> dict[str, Any]:
        """The parent's state, and the best epoch with its metrics."""
        return {**super().state_dict(), "best_epoch": self.best_epoch, "best_metrics": self.best_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value and its epoch."""
        self.best_epoch, self.best_metrics = state_dict["best_epoch"], state_dict["best_metrics"]
        super().load_state_dict(state_dict)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch if it is the best, and remember which it was."""
        before = self.best_value
        super().on_validation_end(trainer, pl_module)
        if self.best_value != before:
            self.best_epoch = trainer.current_epoch
            self.best_metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the best epoch's model, if it is wanted."""
        if self.best_value is None or (self._wanted is not None and not self._wanted(self.best_value)):
            return
        # Here and not above: it takes MLflow's torch support along, seconds that only the process of a trial has paid.
        from lightning_hpo.serving.flavor import log_model

        uri, run_id = self._target(trainer)
        last = {key: value.detach().clone() for key, value in pl_module.state_dict().items()}
        best = torch.load(self.best_model_path, map_location="cpu", weights_only=True)
        pl_module.load_state_dict(best["state_dict"])
        try:
            self.model_uri = log_model(
                pl_module,
                trainer.datamodule,  # type: ignore[attr-defined]
                run_id=run_id,
                tracking_uri=uri,
            )
        except LightningHpoError as error:
            self.problem = str(error).splitlines()[0]
        except AWAY as error:
            # The weights are in the folder: the model can be logged when it is registered.
            self.problem = f"its model is not logged, since MLflow did not take it ({type(error).__name__})"
        finally:
            pl_module.load_state_dict(last)

    def _target(self, trainer: Trainer) -> tuple[str, str]:
        if self._tracking_uri is not None and self._run_id is not None:
            return self._tracking_uri, self._run_id
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger) and logger.run_id is not None:
                return str(logger._tracking_uri), logger.run_id
        raise LightningHpoError(
            "MLflowModelCheckpoint: give tracking_uri and run_id, or a Trainer with an MLFlowLogger"
        )
