"""Optuna samplers by class path. A resumed study draws the same values as an uninterrupted one, and no point twice."""

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np
import optuna
from jsonargparse import Namespace
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.flags import instantiate
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.search.dimension import Suggesting
from lightning_hpo.search.library_errors import library_problem
from lightning_hpo.storage.optuna_private import all_trials, stored_trial

__all__ = ["NumberSeededSampler", "Space", "build_sampler"]

_DRAWS = 20
_RANDOM_DRAWS = 1000


class Space(Protocol):
    """A search space: what a trial is asked for, and all its points if they are finitely many."""

    def suggest(self, trial: Suggesting) -> Any:
        """Ask for every value of a trial."""

    def points(self, grid: Mapping[str, Sequence[Any]] | None = None) -> Iterator[dict[str, Any]] | None:
        """Return all points, or None if there are infinitely many."""


class NumberSeededSampler(BaseSampler):
    """Sampler that is seeded for each trial, and that draws no point of an earlier trial again.

    The seed of a trial follows from the study's seed and the trial's number. A sampler seeded once would start again
    from its seed in a new process, and propose the same points again.

    All values of a trial are drawn at its first value. If an earlier trial in any state has the same values, the
    wrapped sampler draws again: training is deterministic, so a second trial would give the same score.

    Args:
        build: Creates the wrapped sampler for a seed.
        seed: Seed of the study.
        space: The search space.
        first: Parameter values of the first trials, by trial number. Missing or impossible values are drawn at random.
            `study.enqueue_trial` is not used, because an enqueued trial looks like a paused one.
        grid: The only values of the parameters, for a sampler that draws from a grid.
    """

    def __init__(
        self,
        build: Callable[[int], BaseSampler],
        seed: int,
        space: Space,
        first: Sequence[Mapping[str, Any]] = (),
        grid: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self._build, self._seed, self._space, self._first = build, seed, space, first
        self._sampler = build(seed)
        self._points = space.points(grid)
        self._next: dict[str, Any] | None = None
        self._known: dict[int, frozenset[tuple[str, Any]]] = {}
        self._loaded = False
        self._drawn: tuple[int, Mapping[str, Any]] = (-1, {})
        self.exhausted = False
        """Whether the wrapped sampler has no values left to draw."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Return an empty space: `sample_independent` draws all values."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return no values: `sample_independent` draws all values."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of the point that is drawn for this trial.

        Raises:
            InputError: If the wrapped sampler raises an exception. The trial then fails.
        """
        if self._drawn[0] != trial.number:
            self._drawn = (trial.number, self._draw(study, trial))
        if param_name in self._drawn[1]:
            return self._drawn[1][param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Delegate to the wrapped sampler, and set `exhausted` if it calls `Study.stop`.

        `Study.stop` raises a RuntimeError here, because `Study.optimize` is not running.
        """
        if trial.number < len(self._first):
            return
        try:
            self._sampler.after_trial(study, trial, state, values)
        except RuntimeError as error:
            if "Study.stop" not in str(error):
                raise
            self.exhausted = True

    def remember(self, number: int, params: Mapping[str, Any]) -> None:
        """Store the values of a trial, so that no later trial gets them."""
        self._known[number] = _key(params)

    def has_new_point(self, study: optuna.Study) -> bool:
        """Return whether the search space has a point that no trial of the study has."""
        return self._points is None or self._new_point(self._known_to(study)) is not None

    def _draw(self, study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Any]:
        """Return the values of a trial."""
        known = self._known_to(study, trial.number)
        first = self._first[trial.number] if trial.number < len(self._first) else {}
        seed, other_seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(2).tolist()
        self._sampler = RandomSampler(seed) if trial.number < len(self._first) else self._build(seed)
        for _ in range(_DRAWS):
            point = self._draw_once(self._sampler, study, trial, first)
            if _key(point) not in known:
                return point
        if self._points is not None:
            return self._new_point(known) or point
        sampler = RandomSampler(other_seed)
        for _ in range(_RANDOM_DRAWS):
            point = self._draw_once(sampler, study, trial, {})
            if _key(point) not in known:
                return point
        return point

    def _draw_once(
        self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, first: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        try:
            sampler.before_trial(study, trial)
            drawing = _Drawing(sampler, study, trial, first)
            self._space.suggest(drawing)
        except (LightningHpoError, StorageInternalError, sqlite3.Error):
            raise
        except Exception as error:
            raise InputError(library_problem("--study.sampler", type(sampler).__name__, error)) from error
        return drawing.params

    def _known_to(self, study: optuna.Study, number: int = -1) -> set[frozenset[tuple[str, Any]]]:
        """Return the points of all trials but the one with this number."""
        if not self._loaded:
            for trial in all_trials(study):
                self._known.setdefault(trial.number, _key(trial.params))
            self._loaded = True
        return {point for other, point in self._known.items() if other != number}

    def _new_point(self, known: set[frozenset[tuple[str, Any]]]) -> dict[str, Any] | None:
        """Return the first point of a finite space that no trial has, or None. Points before it are not seen again."""
        while self._points is not None and (self._next is None or _key(self._next) in known):
            self._next = next(self._points, None)
            if self._next is None:
                self._points = iter(())
                return None
        return self._next


class _Drawing:
    """Draws values as `optuna.Trial` does, but stores none of them.

    Args:
        sampler: The sampler, after its `before_trial`.
        study: The study.
        trial: The running trial.
        first: Values that are not drawn if they are possible.
    """

    def __init__(self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, first: Mapping[str, Any]) -> None:
        self._sampler, self._study, self._first = sampler, study, first
        self._trial = copy(stored_trial(study, trial))  # with the attributes that the sampler has stored
        # A trial that was interrupted while its values were stored gets the same values again.
        self._trial.params, self._trial.distributions = {}, {}
        space = sampler.infer_relative_search_space(study, self._trial)
        self._relative = sampler.sample_relative(study, self._trial, space)

    @property
    def params(self) -> dict[str, Any]:
        """The values so far."""
        return self._trial.params

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        return self._value(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return an integer from a range."""
        return int(self._value(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a float from a range."""
        return float(self._value(name, FloatDistribution(low, high, log=log, step=step)))

    def _value(self, name: str, distribution: BaseDistribution) -> Any:
        if distribution.single():
            value = distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low  # type: ignore[attr-defined]
        elif name in self._first and _contains(distribution, self._first[name]):
            value = self._first[name]
        elif name in self._relative and _contains(distribution, self._relative[name]):
            value = self._relative[name]
        else:
            value = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        self._trial.params = {**self._trial.params, name: value}
        self._trial.distributions = {**self._trial.distributions, name: distribution}
        return value


def _key(params: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """Return what two equal points have in common. Rounding errors of steps do not count."""
    return frozenset(
        (name, float(f"{value:.12g}") if isinstance(value, float) else value) for name, value in params.items()
    )


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a value is in a distribution. Optuna's public check is part of `create_trial`."""
    try:
        optuna.trial.create_trial(value=0.0, params={"value": value}, distributions={"value": distribution})
    except (TypeError, ValueError):
        return False
    return True


def build_sampler(
    config: Namespace | None, seed: int, space: Space, first: Sequence[Mapping[str, Any]] = ()
) -> NumberSeededSampler:
    """Create the configured sampler (default: multivariate grouped TPE) in a `NumberSeededSampler`."""
    on_grid = config is not None and config.class_path.endswith(".GridSampler")

    def build(trial_seed: int) -> BaseSampler:
        if config is None:
            return _default_sampler(trial_seed)
        seeded = config.clone()
        if "seed" in seeded.init_args:
            # GridSampler shuffles its grid by the seed, so the seed must be the same in every trial.
            seeded.init_args.seed = seed if on_grid else trial_seed
        sampler: BaseSampler = instantiate(BaseSampler, seeded, "--study.sampler")
        return sampler

    grid = config.init_args.search_space if config is not None and on_grid else None
    return NumberSeededSampler(build, seed, space, first, grid)


def _default_sampler(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # "group" lets TPE model conditional flags together. Optuna has marked it experimental since 2021.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, seed=seed)
