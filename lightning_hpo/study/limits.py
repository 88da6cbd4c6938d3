"""The limits of a Trainer: how much it trains before it first validates."""

import math
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Self

from lightning.pytorch import Trainer

from lightning_hpo.config.lightning_private import limited_batches

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of a Trainer, whose attributes have these names.

    With `shorten`, a Trainer trains and validates one batch. `problems` says what the limits do with all batches.
    """

    limit_train_batches: int | float
    limit_val_batches: int | float
    val_check_interval: int | float
    check_val_every_n_epoch: int | None
    max_epochs: int | None
    max_steps: int

    @classmethod
    def of(cls, trainer: Trainer) -> Self:
        """Return the limits of a Trainer."""
        # Some of the attributes have no type in Lightning.
        found: Any = trainer
        return cls(**{name: getattr(found, name) for name in cls.__dataclass_fields__})

    def shorten(self, trainer: Trainer) -> None:
        """Limit a Trainer to one batch of training and one of validation."""
        limited: Any = trainer
        limited.limit_train_batches = limited.limit_val_batches = limited.check_val_every_n_epoch = 1
        limited.val_check_interval = 1.0
        limited.num_sanity_val_steps = min(limited.num_sanity_val_steps, 1)
        limited.fit_loop.max_epochs = 1
        limited.fit_loop.epoch_loop.max_steps = -1

    def problems(self, trainer: Trainer) -> list[str]:
        """Return one line for each limit with which a training would fail or validate nothing.

        Args:
            trainer: A Trainer that has loaded its data.

        Raises:
            MisconfigurationException: If Lightning refuses a limit for the number of batches.
        """
        loaders = trainer.val_dataloaders
        for loader in loaders if isinstance(loaders, list | tuple) else [loaders]:
            limited_batches("validate", _length(loader), self.limit_val_batches)
        batches = limited_batches("train", _length(trainer.train_dataloader), self.limit_train_batches)
        return self._interval_problems(batches) or self._step_problems(batches, trainer)

    def _interval_problems(self, batches: float) -> list[str]:
        interval, got = self.val_check_interval, f"--trainer.val_check_interval: got {self.val_check_interval}"
        if math.isinf(batches) and isinstance(interval, float) and interval != 1.0:
            return [f"{got}, but the number of training batches is unknown; use 1.0 or a number of batches"]
        if isinstance(interval, int) and self.check_val_every_n_epoch is not None and interval > batches:
            return [f"{got}, but an epoch has {batches} training batches; use {batches} or less"]
        return []

    def _step_problems(self, batches: float, trainer: Trainer) -> list[str]:
        """Return a line if the training ends before its first validation."""
        interval, epochs = self.val_check_interval, self.check_val_every_n_epoch
        within = interval if isinstance(interval, int) else max(1, batches * interval // 1)
        first = within if epochs is None else (epochs - 1) * batches + within
        total = math.inf if self.max_epochs in (None, -1) else batches * float(self.max_epochs or 0)
        steps = math.ceil(first / trainer.accumulate_grad_batches) if math.isfinite(first) else math.inf
        if first > total:
            return [
                f"--trainer.max_epochs, --trainer.val_check_interval: {total:.0f} batches are trained, and the first "
                f"validation would come after {first:.0f}"
            ]
        automatic = trainer.lightning_module.automatic_optimization
        if automatic and self.max_steps != -1 and self.max_steps < steps < math.inf:
            return [
                f"--trainer.max_steps: got {self.max_steps}, but the first validation comes after {steps} steps; use "
                "more steps, or validate earlier with --trainer.val_check_interval"
            ]
        return []


def _length(loader: Any) -> float:
    """Return the number of batches of a loader; infinite if it is unknown, or there are several loaders."""
    if isinstance(loader, list | tuple | dict) or not isinstance(loader, Sized):
        return math.inf
    try:
        return len(loader)
    except TypeError:  # a DataLoader of an IterableDataset
        return math.inf
