"""A module that logs given values, a function that fits it, and signals during training."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from torch import Tensor

from tests.foreign import ForeignData, ForeignModule

Fit = Callable[..., Trainer]


class Scripted(ForeignModule):
    """Logs the given value of each epoch as `val_metric`, and the number of the epoch as `scripted_loss`."""

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
def restored_signal_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Terminator(Callback):
    """Sends SIGTERM to its own process at the start of one batch, and lists all batches."""

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
def mlflow_logger(tracking_uri: str, tmp_path: Path) -> Iterator[MLFlowLogger]:
    """Lightning's logger with its own run; it sets the tracking URI of the process."""
    before = mlflow.get_tracking_uri()
    yield MLFlowLogger("plain", tracking_uri=tracking_uri, artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_tracking_uri(before)


@pytest.fixture
def fit(quiet_trainer: Callable[..., Trainer]) -> Fit:
    """Function that fits a module for one epoch per value; the module logs the values."""

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
