"""The objective of a study: its metric, and whether a higher or a lower value is better."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.study import StudyDirection

from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey

__all__ = ["BASELINE_METRIC", "Mode", "Objective", "comparable_baselines", "known_mode", "score_text"]

Mode = Literal["max", "min"]

BASELINE_METRIC = "val_metric"
"""The metric that the baselines of a data set are scores in, and that is maximized by convention."""

# Lightning adds these words to the name of a metric that is logged per step and per epoch.
_LOGGED_PER = ("step", "epoch")
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
    mode: Mode

    @classmethod
    def of(cls, study: optuna.Study) -> "Objective":
        """Return the objective of an Optuna study.

        Raises:
            InputError: If the study has several objectives.
        """
        if (count := len(study.directions)) != 1:
            raise InputError(f"{study.study_name}: the study has {count} objectives; use a study with one")
        mode: Mode = "max" if study.directions[0] == StudyDirection.MAXIMIZE else "min"
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


def known_mode(monitor: str, minimized: Iterable[str] | None = None) -> Mode | None:
    """Return the mode of a metric, or None if nothing tells whether a higher or a lower value is better.

    Args:
        monitor: Name of the metric.
        minimized: Names of the metrics that a module declares as `MINIMIZED`; all its others are maximized. None for a
            module without that attribute: then `val_metric` is maximized, and a loss is minimized.
    """
    if minimized is not None:
        return "min" if monitor in minimized else "max"
    words = [word for word in re.split(r"[^a-z]+", monitor.lower()) if word and word not in _LOGGED_PER]
    if words[-1:] == ["loss"]:
        return "min"
    return "max" if monitor == BASELINE_METRIC else None


def comparable_baselines(attributes: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the baselines of a study with these attributes; none if it optimizes another metric than theirs."""
    baselines: Mapping[str, float] = attributes.get(StudyKey.BASELINES, {})
    return baselines if attributes.get(StudyKey.MONITOR) == BASELINE_METRIC else {}
