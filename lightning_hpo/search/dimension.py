"""One searched flag: its values, and when it is sampled."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

__all__ = ["Dimension", "label", "unlabelled"]

_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Dimension:
    """One searched flag.

    Args:
        flag: The flag's name without dashes.
        low: Lower end of a range.
        high: Upper end of a range, included.
        step: Distance of the values of a range.
        log: Whether to sample a range on a logarithmic scale.
        choices: The values of a categorical flag.
        when: Values of other searched flags under which this one is sampled.
        at_most: Shares of other searched flags' values that the range ends at, where that is below `high`.
        fixed: Whether there is nothing to draw: its one choice is what the config has.
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
    def whole(self) -> bool:
        """Whether the range holds whole numbers only."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 0))

    def suggest(self, trial: optuna.Trial) -> Any:
        """The trial's value of this flag."""
        if self.fixed:
            return self.choices[0]
        if self.choices:
            # Optuna stores plain values; a list is searched by its JSON.
            name = trial.suggest_categorical(self.flag, [label(choice) for choice in self.choices])
            return next(choice for choice in self.choices if label(choice) == name)
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.flag, low, high, step=step, log=self.log)
        return trial.suggest_float(self.flag, self.low, self.high, step=self.step, log=self.log)

    def sampled_with(self, values: Mapping[str, Any]) -> bool:
        """Whether it is sampled where other flags have these values."""
        return all(flag in values and _met(values[flag], wanted) for flag, wanted in self.when.items())

    def within(self, values: Mapping[str, Any]) -> "Dimension":
        """The dimension as it is where other flags have these values."""
        limits = [share * values[flag] for flag, share in self.at_most.items() if flag in values]
        high = min([self.high, *limits])
        if high == self.high:
            return self
        if self.step is not None:
            high = self.low + self.step * math.floor((high - self.low) / self.step)
        return replace(self, high=math.floor(high) if self.whole else high)

    def fixed_at(self, value: Any) -> "Dimension":
        """The dimension with one value only."""
        return Dimension(self.flag, choices=(value,), when=self.when, fixed=True)

    def narrowed(self, around: float, share: float) -> "Dimension":
        """The dimension with a part of its range; choices stay as they are.

        The ends of a range with steps are moved outwards onto steps, so that the neighbours of a value stay. A range
        that another flag may end keeps its lower end: that flag's values may reach down to it.

        Args:
            around: The middle of the part; the nearest end of the range, if it lies outside.
            share: Share of the range, of its logarithm where that is what is sampled; cut off at the range's ends.
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
        step = self.step or (1 if self.whole else None)
        if step is None:
            return value
        # What is a whole number of steps but for the last digits is one.
        return self.low + step * rounded(round((value - self.low) / step, 9))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that the flag must accept for the dimension to be sound."""
        second = () if self.step is None else (min(self.low + self.step, self.high),)
        return self.choices or (self.low, *second, self.high)


def label(choice: Any) -> bool | int | float | str | None:
    """What Optuna stores for a choice."""
    return choice if isinstance(choice, _PLAIN) else json.dumps(choice)


def unlabelled(stored: Any) -> Any:
    """The choice that Optuna has stored."""
    return json.loads(stored) if isinstance(stored, str) and stored.startswith(("[", "{")) else stored


def _met(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else bool(value == wanted)
