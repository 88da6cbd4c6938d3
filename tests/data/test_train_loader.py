"""Tests with a real Trainer, since Lightning sets the epochs and restores the state of the loader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_hpo.data.batching import Draw, TrainBatchSampler
from lightning_hpo.data.train_loader import TrainLoader

pytestmark = pytest.mark.filterwarnings(
    # Lightning recommends more workers, and warns of resuming within an epoch, which is tested here.
    "ignore:.*LeafSpec.*",
    "ignore:.*does not have many workers",
    "ignore:.*resuming from a checkpoint that ended before the epoch ended",
    "ignore:.*exists and is not empty",
    # Depends on the machine, not on the code.
    "ignore:.*multi-threaded, use of fork.*",
)

_EPOCHS, _BATCHES = 3, 5


class _Draws(Dataset[Tensor]):
    def __getitem__(self, draws: list[Draw]) -> Tensor:
        return torch.tensor([[draw.epoch, draw.index] for draw in draws], dtype=torch.float)


class _Recorder(LightningModule):
    """Records its training batches."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen: list[list[list[float]]] = []
        self.workers = workers

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(batch.tolist())
        loss: Tensor = self.layer(batch).mean() * 0
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> TrainLoader:
        sampler = TrainBatchSampler(np.arange(40).take, windows=40, kept=np.arange(10), drawn=8, batch_size=4, seed=1)
        return TrainLoader(_Draws(), sampler, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(1, 2))  # type: ignore[arg-type]


class _Stop(Callback):
    """Raises at a step, as an interruption within an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("interrupted")


def _fit(folder: Path, workers: int = 0, stop: int = -1, resume: str | None = None, **checkpoint: Any) -> _Recorder:
    model = _Recorder(workers)
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **checkpoint)
    trainer = Trainer(
        max_epochs=_EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saver, _Stop(stop)],
        num_sanity_val_steps=1,
    )
    if stop >= 0:
        with pytest.raises(RuntimeError, match="interrupted"):
            trainer.fit(model, ckpt_path=resume)
    else:
        trainer.fit(model, ckpt_path=resume)
    return model


def test_each_epoch_is_redrawn_and_complete(tmp_path: Path) -> None:
    seen = _fit(tmp_path, every_n_epochs=1).seen
    sampler = _Recorder(0).train_dataloader().sampler
    assert isinstance(sampler, TrainBatchSampler)
    expected = [
        [[draw.epoch, draw.index] for draw in batch] for epoch in range(_EPOCHS) for batch in sampler.batches(epoch)
    ]
    assert seen == expected
    assert len(seen) == _EPOCHS * _BATCHES


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("step", "stop", "checkpoint"),
    [
        (3, 4, {"every_n_train_steps": 1}),
        (7, 8, {"every_n_train_steps": 1}),
        (10, 11, {"every_n_train_steps": 1}),
        (5, 7, {"every_n_epochs": 1, "save_on_train_epoch_end": False}),
        (10, 12, {"every_n_epochs": 1, "save_on_train_epoch_end": True}),
    ],
)
def test_resumed_training_has_the_batches_of_an_uninterrupted_one(
    tmp_path: Path, workers: int, step: int, stop: int, checkpoint: dict[str, Any]
) -> None:
    whole = _fit(tmp_path / "whole", **checkpoint).seen
    before = _fit(tmp_path / "parts", workers, stop=stop, **checkpoint).seen
    after = _fit(tmp_path / "parts", workers, resume=str(tmp_path / "parts" / f"step={step}.ckpt"), **checkpoint).seen
    assert before == whole[:stop]
    assert after == whole[step:]
