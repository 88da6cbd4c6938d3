"""What a report reads of a study: its trials, their scores, its parameters, their runs."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import RUNTIME
from lightning_hpo.tracking.tracker import Run

Item = TypeVar("Item")

__all__ = ["StudyRecord", "evenly", "score", "seconds_of"]

_SCORED_BY_CONSTANTS = "val_metric"


class StudyRecord:
    """A study as it stands now; nothing is read twice, so that all of a report is of one moment.

    Args:
        study: The study.
        runs: MLflow's runs of its trials, by the number of the trial; those that are known.

    Raises:
        InputError: If the study has several objectives.
    """

    def __init__(self, study: optuna.Study, runs: Mapping[int, Run]) -> None:
        if len(study.directions) != 1:
            raise InputError(
                f"{study.study_name}: it has {len(study.directions)} objectives; a report is of a study with one"
            )
        self.study = study
        self.name = study.study_name
        self.runs = runs
        self.about: Mapping[str, Any] = study.user_attrs
        self.maximizes = study.directions[0] == StudyDirection.MAXIMIZE
        self.trials: Sequence[FrozenTrial] = study.get_trials(deepcopy=False)

    @property
    def monitor(self) -> str:
        """What the study optimizes."""
        return str(self.about.get("monitor", "score"))

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """The trials with a score, by number."""
        return self.of(TrialState.COMPLETE)

    def of(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states, by number."""
        return [trial for trial in self.trials if trial.state in states]

    def better(self, one: float, other: float) -> bool:
        """Whether one score is better than another."""
        return one > other if self.maximizes else one < other

    @cached_property
    def best(self) -> FrozenTrial | None:
        """The first of the best complete trials."""
        best: FrozenTrial | None = None
        for trial in self.complete:
            if best is None or self.better(score(trial), score(best)):
                best = trial
        return best

    @property
    def constant_answers(self) -> Mapping[str, float]:
        """The score of each constant answer."""
        answers: Mapping[str, float] = self.about.get("constant_answers", {})
        return answers

    @property
    def baselines(self) -> Mapping[str, float]:
        """The constant answers' scores, if they are in the figure that the study optimizes."""
        answers = self.constant_answers if self.monitor == _SCORED_BY_CONSTANTS else {}
        return {f"constant answer: {name}": value for name, value in answers.items()}

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Every searched parameter, in the order in which they came; its latest distribution."""
        return {name: kind for trial in self.trials for name, kind in trial.distributions.items()}

    def values(self, name: str) -> list[Any]:
        """The complete trials' values of a parameter, None where it was not searched."""
        return [trial.params.get(name) for trial in self.complete]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, the first and the last among them, at even distances."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def score(trial: FrozenTrial) -> float:
    """The score of a complete trial."""
    return math.nan if trial.value is None else trial.value


def seconds_of(trial: FrozenTrial) -> float:
    """Seconds that a trial has trained; of a trial from elsewhere, those from its start to its end."""
    between = trial.duration.total_seconds() if trial.duration else 0.0
    return float(trial.user_attrs.get(RUNTIME, between))
