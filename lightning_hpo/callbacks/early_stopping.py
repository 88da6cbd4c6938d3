"""Early stopping that does not count the epochs of the warm-up."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

__all__ = ["PatientEarlyStopping"]


class PatientEarlyStopping(EarlyStopping):
    """Lightning's `EarlyStopping`, which starts when the warm-up of the learning rate has ended.

    In the warm-up, a score with a threshold may stand still for epochs while the loss falls.

    Args:
        warmup: Share of the training that is the warm-up; default: that of the module's schedule, or 0.
        kwargs: Arguments of `EarlyStopping`: monitor, mode, patience, and others.
    """

    def __init__(
        self, *, warmup: float | None = None, monitor: str = "val_metric", mode: str = "max", **kwargs: Any
    ) -> None:
        super().__init__(monitor=monitor, mode=mode, **kwargs)
        self._warmup = warmup

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric after the warm-up."""
        if not self._warms_up(trainer, pl_module):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric after the warm-up."""
        if not self._warms_up(trainer, pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def _warms_up(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        share = self._warmup
        if share is None:
            share = getattr(getattr(pl_module, "schedule", None), "warmup", 0.0)
        return trainer.current_epoch + 1 <= share * (trainer.max_epochs or 0)
