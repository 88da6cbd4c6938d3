"""A module that logs what a test tells it to, whole fits of it, and signals amid them."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
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
def handler_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Terminator(Callback):
    """Sends SIGTERM to its own process at the start of one batch, and counts the batches."""

    def __init__(self, stage: str, epoch: int, batch: int) -> None:
        self._at = (stage, epoch, batch)
        self.seen: list[tuple[str, int, int]] = []

    def _start(self, stage: str, trainer: Trainer, batch: int) -> None:
        if trainer.sanity_checking:
            return
        self.seen.append((stage, trainer.current_epoch, batch))
        if self.seen[-1] == self._at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        del pl_module, batch
        self._start("train", trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        del pl_module, batch, dataloader_idx
        self._start("validation", trainer, batch_idx)


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
