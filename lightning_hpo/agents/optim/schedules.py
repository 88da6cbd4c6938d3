"""Learning rate schedules."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_hpo.agents.settings import Settings
from lightning_hpo.exceptions import InputError
from lightning_hpo.flag_types import Bounds

__all__ = ["Schedule", "ScheduleName", "make_schedule", "training_steps"]

ScheduleName = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "constant"]

# Defaults of OneCycleLR: first rate / highest rate, and last rate / first rate.
_FIRST, _LAST = 1 / 25, 1e-4


@dataclass(frozen=True)
class Schedule(Settings):
    """The learning rate schedule.

    Args:
        name: Decay after the warm-up. linear, cosine, cosine_with_restarts (see cycles) and polynomial (see power) end
            at 0. one_cycle (Smith and Topin 2018) rises from a 25th of lr as a cosine, and ends near 0. constant does
            not decay.
        warmup: Warm-up, as a share of all training steps. Usual: 0.06 to 0.1.
        cycles: Number of cosine decays in cosine_with_restarts. Usual: 2 to 4.
        power: Exponent of polynomial: below 1 the rate decays late, above 1 early. Usual: 0.5 to 3.
    """

    FLAG: ClassVar[str] = "--model.schedule"

    name: ScheduleName = "linear"
    warmup: Annotated[float, Bounds(0, 0.5)] = 0.1
    cycles: Annotated[int, Bounds(1, 100)] = 2
    power: Annotated[float, Bounds(0.01, 100)] = 2.0

    def first(self) -> float:
        """Return the factor of the learning rate at step 0. It does not depend on the number of steps."""
        if not self.warmup:
            return 1.0
        return _FIRST if self.name == "one_cycle" else 0.0

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate at a step of `steps`.

        The factors equal those of transformers and torch, whose schedules need `steps` when they are built.
        """
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return _cosine(_FIRST, 1.0, step / warm) if self.name == "one_cycle" else step / warm
        done = min(1.0, (step - warm) / max(1, steps - warm))
        if self.name == "constant":
            return 1.0
        if self.name == "cosine_with_restarts":
            return 0.0 if done == 1.0 else _cosine(1.0, 0.0, self.cycles * done % 1.0)
        if self.name == "polynomial":
            return float((1.0 - done) ** self.power)
        if self.name == "linear":
            return 1.0 - done
        return _cosine(1.0, _FIRST * _LAST if self.name == "one_cycle" else 0.0, done)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1.0 + math.cos(math.pi * done))


def make_schedule(optimizer: Optimizer, schedule: Schedule, steps: Callable[[], int]) -> LambdaLR:
    """Build the scheduler.

    `steps` returns the number of training steps. It is called after the first step, when the data loader exists:
    Lightning's `estimated_stepping_batches` would build the loader too early, and Lightning would then drop the state
    of the loader on resuming (pytorch-lightning#20550).
    """

    def factor(step: int) -> float:
        return schedule.factor(step, steps()) if step else schedule.first()

    return LambdaLR(optimizer, factor)


def training_steps(trainer: Trainer) -> int:
    """Return the number of optimizer steps of a training.

    Raises:
        InputError: If the training has no end.
    """
    limits = [float(trainer.max_steps)] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        limits.append(float(steps * trainer.max_epochs))
    if not limits or min(limits) == float("inf"):
        raise InputError(
            "--trainer.max_epochs, --trainer.max_steps: neither is set; --model.schedule needs the number of steps"
        )
    return int(min(limits))
