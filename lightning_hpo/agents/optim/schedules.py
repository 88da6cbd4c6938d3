"""The learning rate over the steps of a training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["Schedule", "ScheduleName", "make_schedule"]

ScheduleName = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "constant"]

# OneCycleLR's own: the first rate is this share of the highest, and the last rate this share of the first.
_FIRST, _LAST = 1 / 25, 1e-4


@dataclass(frozen=True)
class Schedule(Settings):
    """The learning rate over the steps of a training.

    Args:
        name: What follows the warm-up, all down to 0 but the last: linear; cosine; cosine_with_restarts (`cycles` times
            over); polynomial (to the power `power`); one_cycle (Smith and Topin 2018: the warm-up rises as a cosine
            from a 25th of the rate); constant.
        warmup: Share of all steps in which the rate rises, 0 to 0.5.
        cycles: How many times cosine_with_restarts falls, 1 to 100.
        power: Power of polynomial: below 1 the rate falls late, above 1 early.
    """

    FLAG: ClassVar[str] = "--model.schedule"

    name: ScheduleName = "linear"
    warmup: float = 0.1
    cycles: int = 2
    power: float = 2.0

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        names = get_args(ScheduleName)
        found = [] if self.name in names else [f"{self.FLAG}.name: got {self.name!r}; there are {', '.join(names)}"]
        found += outside(f"{self.FLAG}.warmup", self.warmup, 0, 0.5)
        found += outside(f"{self.FLAG}.cycles", self.cycles, 1, 100)
        return found + outside(f"{self.FLAG}.power", self.power, 0.01, 100)

    def first(self) -> float:
        """Give the share of the highest learning rate at step 0, which does not depend on how many steps there are."""
        if not self.warmup:
            return 1.0
        return _FIRST if self.name == "one_cycle" else 0.0

    def factor(self, step: int, steps: int) -> float:
        """Give the share of the highest learning rate at a step of `steps`, as transformers' and torch's schedules do.

        Written out, since theirs must know `steps` when they are made.
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
    """Build the schedule.

    Args:
        optimizer: Whose rates are scheduled.
        schedule: Which one.
        steps: Gives the number of steps of the training; asked after the first step, when the loader is there.
            Lightning's `estimated_stepping_batches` would make the loader here, and then drop its state on resuming
            (pytorch-lightning#20550).
    """

    def factor(step: int) -> float:
        if step == 0:
            return schedule.first()
        return schedule.factor(step, steps())

    return LambdaLR(optimizer, factor)
