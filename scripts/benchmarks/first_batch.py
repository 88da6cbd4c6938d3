"""Callback that exits the process at the first training batch.

It has its own module because the imports of this module are part of the measured time.
"""

import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["EndAtFirstBatch"]


class EndAtFirstBatch(Callback):
    """Exits the process at the first training batch, without clean-up, which would take time."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Exit the process."""
        del trainer, pl_module, batch, batch_idx
        os._exit(0)
