"""A module that logs what a test tells it to, and whole fits of it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from tests.foreign import ForeignData, ForeignModule

Fit = Callable[..., Trainer]


class Scripted(ForeignModule):
    """Logs the given value of each epoch as its metric, and the epoch's number as its training loss."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = values

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("scripted_loss", float(self.current_epoch), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        del batch, batch_idx
        self.log("val_metric", torch.tensor(self.values[self.current_epoch]))


@pytest.fixture
def fit(quiet_trainer: Callable[..., Trainer]) -> Fit:
    """Fits a module that logs the given values, an epoch each."""

    def run(
        values: Sequence[float],
        callbacks: Sequence[Callback],
        *,
        module: ForeignModule | None = None,
        ckpt_path: Any = None,
        **options: Any,
    ) -> Trainer:
        trainer = quiet_trainer(callbacks=list(callbacks), max_epochs=len(values), **options)
        trainer.fit(module or Scripted(values), ForeignData(), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run
