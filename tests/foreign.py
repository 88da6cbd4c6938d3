"""A module and a data module that do not use this package, for `tune` to load by class path."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class ForeignModule(LightningModule):
    def __init__(self, hidden: int = 4, lr: float = 0.1, fails: bool = False, diverges: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.lr, self.fails, self.diverges = lr, fails, diverges
        self.example_input_array = torch.zeros(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.fails:
            raise RuntimeError(f"planted failure in a batch of {len(batch[0])}")
        loss = nn.functional.mse_loss(self(batch[0]), batch[1])
        loss = loss * float("nan") if self.diverges and self.global_step else loss  # not in the preflight's one batch
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        loss = nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log("val_loss", loss)
        self.log("val_metric", 1 / (1 + loss))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class TestedModule(ForeignModule):
    """Module with a test step."""

    __test__ = False  # not a test class

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_loss", nn.functional.mse_loss(self(batch[0]), batch[1]))


class NormalizedModule(ForeignModule):
    """Module with batch normalization."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(lr=lr)
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


class PredictingModule(ForeignModule):
    """Module whose predictions are the numbers of the batches."""

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> list[dict[str, int]]:
        del batch
        return [{"batch": batch_idx}]


class UnbuildableModule(ForeignModule):
    """Module that cannot be created."""

    def __init__(self) -> None:
        super().__init__()
        raise RuntimeError("Please set `nodes=2` in the Trainer,\nor unset SLURM_NTASKS")


class PlacedLoader(DataLoader[tuple[Tensor, ...]]):
    """Stateful data loader, like those of torchdata."""

    first = place = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        first, self.first = self.first, 0
        for place, batch in enumerate(super().__iter__(), start=1):
            if place > first:
                self.place = place
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["place"]


class ForeignData(LightningDataModule):
    def __init__(self, rows: int = 64, batch_size: int = 16, placed: bool = False) -> None:
        super().__init__()
        self.rows, self.batch_size = rows, batch_size
        self.loader = PlacedLoader if placed else DataLoader

    def _loader(self, seed: int) -> DataLoader[tuple[Tensor, ...]]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(self.rows, 2, generator=generator)
        return self.loader(TensorDataset(x, x.prod(dim=1, keepdim=True)), batch_size=self.batch_size)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader(1)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader(2)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader(3)

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._loader(4)
