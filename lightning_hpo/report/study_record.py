"""Data of a study that the report shows: its trials, scores, parameters and MLflow runs."""

import math
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.objective import Objective, comparable_baselines
from lightning_hpo.tracking.tracker import Run

Item = TypeVar("Item")

__all__ = ["StudyRecord", "StudyView", "quiet", "score", "seconds_of", "thin_out"]


class StudyView(optuna.Study):
    """Read-only view of some trials of a study, for Optuna's plots.

    The trials keep their numbers, which a copy into another study would change. Optuna's plots copy all trials on
    each access; the view does not, which saves several seconds at 1,000 trials.

    Args:
        direction: Direction of the study.
        trials: The trials, by number.
    """

    def __init__(self, direction: Literal["maximize", "minimize"], trials: Sequence[FrozenTrial]) -> None:
        storage = optuna.storages.InMemoryStorage()
        super().__init__(optuna.create_study(storage=storage, direction=direction).study_name, storage)
        self._chosen = trials

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:  # noqa: ARG002
        """Return the trials in these states, without a copy."""
        return [trial for trial in self._chosen if states is None or trial.state in states]


class StudyRecord:
    """Snapshot of a study: each trial is read once, so that all parts of a report agree.

    Args:
        study: The study.
        runs: MLflow runs by trial number; trials without a known run are left out.

    Raises:
        InputError: If the study has several objectives.
    """

    def __init__(self, study: optuna.Study, runs: Mapping[int, Run]) -> None:
        self.objective = Objective.of(study)
        self.study = study
        self.name = study.study_name
        self.runs = runs
        self.about: Mapping[str, Any] = study.user_attrs
        self.monitor = self.objective.monitor
        self.trials: Sequence[FrozenTrial] = study.get_trials(deepcopy=False)

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """Complete trials with a finite score, by number."""
        return [trial for trial in self.of(TrialState.COMPLETE) if math.isfinite(score(trial))]

    @cached_property
    def collapsed(self) -> list[FrozenTrial]:
        """Complete trials that predict the same for every example."""
        return [trial for trial in self.complete if trial.user_attrs.get(TrialKey.COLLAPSED)]

    def of(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, by number."""
        return [trial for trial in self.trials if trial.state in states]

    @cached_property
    def best(self) -> FrozenTrial | None:
        """Best complete trial; the first one of equals."""
        return min(self.complete, key=lambda trial: self.objective.sort_key(score(trial)), default=None)

    @property
    def baselines(self) -> Mapping[str, float]:
        """Scores of the baselines if they are in the metric that the study optimizes, else none."""
        return comparable_baselines(self.about)

    @cached_property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Latest distribution of each searched parameter, in the order of the search."""
        return {name: kind for trial in self.trials for name, kind in trial.distributions.items()}

    @cached_property
    def importances(self) -> Mapping[str, float]:
        """Share of each parameter in what distinguishes the best tenth of the trials, the largest first.

        The shares sum to 1. They come from PED-ANOVA (Watanabe, Bansal and Hutter 2023), Optuna's default, which needs
        no scikit-learn. Empty if the trials do not distinguish the parameters.
        """
        if len(self.complete) < 2 or not any(trial.params for trial in self.complete):
            return {}
        with quiet():
            shares = optuna.importance.get_param_importances(self.view(self.complete))
        # Optuna returns equal shares if no parameter matters, and the whole share for a single parameter.
        return shares if max(shares.values()) > min(shares.values()) else {}

    @cached_property
    def parameters(self) -> list[str]:
        """Parameters of the complete trials, the most important first."""
        searched = [name for name in self.distributions if any(name in trial.params for trial in self.complete)]
        return sorted(searched, key=lambda name: -self.importances.get(name, 0.0))

    def view(self, trials: Sequence[FrozenTrial], limit: int | None = None) -> StudyView:
        """Return a view of these trials for Optuna's plots.

        Args:
            trials: The trials, by number.
            limit: Maximum number; more are thinned out evenly, but the best trial is kept.
        """
        if limit is not None and len(trials) > limit:
            numbers = {trial.number for trial in [*thin_out(trials, limit), *([self.best] if self.best else [])]}
            trials = [trial for trial in trials if trial.number in numbers]
        return StudyView(self.objective.direction, trials)


def thin_out(items: Sequence[Item], limit: int) -> list[Item]:
    """Return at most `limit` items at even distances, with the first and the last."""
    if len(items) <= limit:
        return list(items)
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what Optuna logs and warns about while it plots, such as few trials, which the captions state."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (ExperimentalWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def score(trial: FrozenTrial) -> float:
    """Return the score of a complete trial."""
    return math.nan if trial.value is None else trial.value


def seconds_of(trial: FrozenTrial) -> float:
    """Return the training time of a trial; if it is not recorded, the time from its start to its end."""
    elapsed = trial.duration.total_seconds() if trial.duration else 0.0
    return float(trial.user_attrs.get(TrialKey.RUNTIME, elapsed))
