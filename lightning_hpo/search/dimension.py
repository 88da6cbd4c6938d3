"""One searched flag: its range or choices, and its conditions."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

__all__ = ["Dimension", "Suggesting", "drawn_from", "from_label", "label"]

_PLAIN = (bool, int, float, str, type(None))


class Suggesting(Protocol):
    """Interface of what values are asked from: `optuna.Trial`, or a draw that no trial stores yet."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return an integer from a range."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a float from a range."""


@dataclass(frozen=True)
class Dimension:
    """One searched flag.

    Args:
        flag: The flag's name without dashes.
        low: Lower end of a range, included.
        high: Upper end of a range, included.
        step: Distance between the values of a range.
        log: Whether to sample a range on a logarithmic scale.
        choices: Values of a categorical flag.
        when: Condition for sampling the flag: the value, or list of values, that each other searched flag must have.
        at_most: Further upper limits of a range: shares of the values of other searched flags.
        fixed: Whether the flag is not sampled. Its only choice is the config's value.
    """

    flag: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    fixed: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether the range contains integers only."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 0))

    @property
    def distribution(self) -> BaseDistribution:
        """The distribution that Optuna draws the flag from. A list among the choices is stored as JSON."""
        if self.choices:
            return CategoricalDistribution([label(choice) for choice in self.choices])
        if self.is_integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: "Suggesting") -> Any:
        """Return the value of the flag in a trial."""
        if self.fixed:
            return self.choices[0]
        if self.choices:
            drawn = trial.suggest_categorical(self.flag, [label(choice) for choice in self.choices])
            return next(choice for choice in self.choices if label(choice) == drawn)
        if self.is_integer:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.flag, low, high, step=step, log=self.log)
        return trial.suggest_float(self.flag, self.low, self.high, step=self.step, log=self.log)

    @property
    def values(self) -> Iterable[Any] | None:
        """All values, one after another, or None if there are infinitely many."""
        if self.choices:
            return self.choices
        if self.is_integer:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if (step := self.step) is None:
            return None
        high = FloatDistribution(self.low, self.high, step=step).high
        steps = round((high - self.low) / step)
        return (min(place * step + self.low, high) for place in range(steps + 1))

    def sampled_with(self, values: Mapping[str, Any]) -> bool:
        """Return whether the flag is sampled if other flags have these values."""
        return all(
            flag in values and values[flag] in (wanted if isinstance(wanted, list) else [wanted])
            for flag, wanted in self.when.items()
        )

    def contains(self, value: Any) -> bool:
        """Return whether a value is one of the choices, or in the range."""
        if self.choices:
            return value in self.choices
        if not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high or math.isclose(value, self.high)  # a sum of steps is not exact

    def values_among(self, stored: Sequence[Any]) -> list[Any]:
        """Return the values of the dimension that are among those that Optuna has stored."""
        if self.choices:
            return [choice for choice in self.choices if label(choice) in stored]
        return [value for value in stored if self.contains(value) and math.isclose(value, self._on_step(value, round))]

    def within(self, values: Mapping[str, Any]) -> "Dimension":
        """Return the dimension with its range limited by the values of other flags."""
        limits = [share * values[flag] for flag, share in self.at_most.items() if flag in values]
        high = min([self.high, *limits])
        if high == self.high:
            return self
        return replace(self, high=self._on_step(high, math.floor))

    def fixed_at(self, value: Any) -> "Dimension":
        """Return the dimension with one value, which is not sampled."""
        return Dimension(self.flag, choices=(value,), when=self.when, fixed=True)

    def narrowed(self, around: float, share: float) -> "Dimension":
        """Return the dimension with a narrower range. Choices do not change.

        The ends of a range with steps are rounded outwards, so that the neighbours of the middle stay in the range. A
        range with `at_most` keeps its lower end, because the other flag's value may limit the range to it.

        Args:
            around: Middle of the new range. If it is outside the range, the nearest end is the middle.
            share: Width of the new range, as a share of the range (of its logarithm if `log`). The new range does not
                exceed the old one.
        """
        if self.choices:
            return self
        middle = min(max(around, self.low), self.high)
        if self.log:
            factor = (self.high / self.low) ** (share / 2)
            low, high = middle / factor, middle * factor
        else:
            half = share / 2 * (self.high - self.low)
            low, high = middle - half, middle + half
        low, high = max(self.low, self._on_step(low, math.floor)), min(self.high, self._on_step(high, math.ceil))
        return replace(self, low=self.low if self.at_most else low, high=high)

    def _on_step(self, value: float, rounded: Callable[[float], int]) -> float:
        step = self.step or (1 if self.is_integer else None)
        if step is None:
            return value
        # Rounding errors must not add a step.
        return self.low + step * rounded(round((value - self.low) / step, 9))

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values to validate: all choices, or the first, second and last value of the range."""
        second = () if self.step is None else (min(self.low + self.step, self.high),)
        return self.choices or (self.low, *second, self.high)


def label(choice: Any) -> bool | int | float | str | None:
    """Return the value that Optuna stores for a choice: the choice itself, or its JSON."""
    return choice if isinstance(choice, _PLAIN) else json.dumps(choice)


def from_label(stored: Any) -> Any:
    """Return the choice for a value that Optuna has stored."""
    return json.loads(stored) if isinstance(stored, str) and stored.startswith(("[", "{")) else stored


def drawn_from(distribution: BaseDistribution) -> str:
    """Return in words what a distribution draws from, without the ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return f"the choices {list(distribution.choices)}"
    kind = "an integer range" if isinstance(distribution, IntDistribution) else "a range of floats"
    scale = " with log: true" if getattr(distribution, "log", False) else ""
    step = getattr(distribution, "step", None)
    return f"{kind}{scale}" + ("" if step in (None, 1) else f" with step: {step:g}")
