"""The objective of a study: its metric, and whether a higher or a lower value is better."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.study import StudyDirection

from lightning_hpo.storage.attributes import StudyKey

__all__ = ["Objective", "score_text"]

_SMALL, _LARGE = 1e-3, 1e6


def score_text(value: float, *, sign: bool = False) -> str:
    """Return a score with four decimals, or with four significant digits where these would show nothing of it.

    Args:
        value: The score, or a difference of scores.
        sign: Whether to show the sign of a positive value.
    """
    plus = "+" if sign else ""
    fixed = value == 0 or _SMALL <= abs(value) < _LARGE
    return f"{value:{plus}.4f}" if fixed else f"{value:{plus}.4g}"


@dataclass(frozen=True)
class Objective:
    """Metric that a study optimizes, and whether a higher or a lower value of it is better.

    Args:
        monitor: Name of the metric.
        mode: "max" if a higher value is better, "min" if a lower value is better.
    """

    monitor: str
    mode: Literal["max", "min"]

    @classmethod
    def of(cls, study: optuna.Study) -> "Objective":
        """Return the objective of an Optuna study, which must not have several."""
        mode: Literal["max", "min"] = "max" if study.direction == StudyDirection.MAXIMIZE else "min"
        return cls(str(study.user_attrs.get(StudyKey.MONITOR, "score")), mode)

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The mode in Optuna's words."""
        return "maximize" if self.mode == "max" else "minimize"

    def gain(self, value: float, other: float) -> float:
        """Return by how much a value is better than another one; negative if it is worse."""
        return value - other if self.mode == "max" else other - value

    def is_better(self, value: float, other: float) -> bool:
        """Return whether a value is strictly better than another one; never true of NaN."""
        return value > other if self.mode == "max" else value < other

    def best(self, values: Iterable[float]) -> float:
        """Return the best of the values, of which there must be at least one."""
        return max(values) if self.mode == "max" else min(values)

    def sort_key(self, value: float) -> float:
        """Return a key that sorts values from best to worst."""
        return -value if self.mode == "max" else value
