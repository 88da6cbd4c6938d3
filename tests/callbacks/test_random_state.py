import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_hpo.callbacks.random_state import RandomState
from tests.foreign import ForeignData, ForeignModule


class _Dropping(ForeignModule):
    """Uses every generator: torch for dropout and shuffling, NumPy and Python for noise."""

    def __init__(self) -> None:
        super().__init__(lr=0.05)
        self.layers.insert(1, nn.Dropout(0.5))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        noise = float(np.random.random() + random.random())
        return super().training_step([batch[0] + noise, batch[1]], batch_idx)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        rows = torch.arange(64.0).view(32, 2) / 64
        return DataLoader(TensorDataset(rows, rows.sum(1, keepdim=True)), batch_size=8, shuffle=True)


@pytest.fixture
def train(quiet_trainer: Callable[..., Trainer], tmp_path: Path) -> Callable[..., list[float]]:
    def run(epochs: int, name: str, *, callbacks: list[Callback], resume: bool = False) -> list[float]:
        # A new process has another random state.
        seed = 99 if resume else 3
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        last = ModelCheckpoint(tmp_path / name, filename="last", enable_version_counter=False)
        trainer = quiet_trainer(callbacks=[*callbacks, last], max_epochs=epochs)
        module = _Dropping()
        checkpoint = tmp_path / name / "last.ckpt" if resume else None
        trainer.fit(module, val_dataloaders=ForeignData().val_dataloader(), ckpt_path=checkpoint, weights_only=True)
        return [weight for parameter in module.parameters() for weight in parameter.detach().flatten().tolist()]

    return run


def test_resumed_training_equals_an_uninterrupted_one(train: Callable[..., list[float]]) -> None:
    whole = train(4, "whole", callbacks=[RandomState()])
    train(2, "parts", callbacks=[RandomState()])
    assert train(4, "parts", callbacks=[RandomState()], resume=True) == whole


def test_resumed_training_differs_without_the_callback(train: Callable[..., list[float]]) -> None:
    whole = train(4, "whole", callbacks=[])
    train(2, "parts", callbacks=[])
    assert train(4, "parts", callbacks=[], resume=True) != whole
