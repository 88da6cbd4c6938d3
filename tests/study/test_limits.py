from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_hpo.study.limits import Limits
from tests.foreign import ForeignData, ForeignModule

Make = Callable[..., Trainer]


class EndlessData(ForeignData):
    """Training batches of an unknown number."""

    def train_dataloader(self) -> Any:
        return DataLoader(_Rows(), batch_size=16)


class _Rows(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(64):
            yield torch.ones(2), torch.ones(1)


class ManualModule(ForeignModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx)


def _problems(make: Make, data: ForeignData | None = None, module: Any = None, **options: Any) -> list[str]:
    trainer = make(**{"max_epochs": 3, **options})
    limits = Limits.of(trainer)
    limits.shorten(trainer)
    trainer.fit(module or ForeignModule(), data or ForeignData())  # 4 batches of training, and 4 of validation
    assert trainer.global_step <= 1
    assert trainer.current_epoch == 1
    return limits.problems(trainer)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 100},
        {"limit_val_batches": 0.5, "limit_train_batches": 2},
        {"val_check_interval": 4},
        {"val_check_interval": 0.25, "max_steps": 1},
        {"val_check_interval": 12, "check_val_every_n_epoch": None},
        {"check_val_every_n_epoch": 3, "max_steps": 12},
        {"max_epochs": -1, "check_val_every_n_epoch": 5},
        {"num_sanity_val_steps": -1},
    ],
)
def test_limits_that_leave_a_validation_are_accepted(quiet_trainer: Make, options: dict[str, Any]) -> None:
    assert _problems(quiet_trainer, **options) == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"val_check_interval": 5}, "--trainer.val_check_interval: got 5, but an epoch has 4 training batches"),
        (
            {"val_check_interval": 13, "check_val_every_n_epoch": None},
            "--trainer.max_epochs, --trainer.val_check_interval: 12 batches are trained, and the first valid",
        ),
        ({"max_steps": 3}, "--trainer.max_steps: got 3, but the first validation comes after 4 steps"),
        (
            {"max_steps": 3, "check_val_every_n_epoch": 2, "accumulate_grad_batches": 2},
            "--trainer.max_steps: got 3, but the first validation comes after 4 steps",
        ),
    ],
)
def test_limits_that_leave_no_validation_are_refused(quiet_trainer: Make, options: dict[str, Any], line: str) -> None:
    [found] = _problems(quiet_trainer, **options)
    assert found.startswith(line)


def test_steps_of_manual_optimization_are_not_counted(quiet_trainer: Make) -> None:
    assert _problems(quiet_trainer, module=ManualModule(), max_steps=3) == []


@pytest.mark.parametrize(("limit", "name"), [(0.1, "limit_val_batches"), (0.1, "limit_train_batches")])
def test_share_that_leaves_no_batch_is_an_error_of_lightning(quiet_trainer: Make, limit: float, name: str) -> None:
    with pytest.raises(MisconfigurationException, match=name):
        _problems(quiet_trainer, None, **{name: limit})


def test_data_without_a_length(quiet_trainer: Make) -> None:
    assert _problems(quiet_trainer, EndlessData()) == []
    [line] = _problems(quiet_trainer, EndlessData(), val_check_interval=0.5)
    assert line.startswith("--trainer.val_check_interval: got 0.5, but the number of training batches is unknown")
    with pytest.raises(MisconfigurationException, match="limit_train_batches"):
        _problems(quiet_trainer, EndlessData(), limit_train_batches=0.5)
