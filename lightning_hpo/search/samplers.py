"""Optuna's samplers, by class path, seeded so that an interrupted study draws what an uninterrupted one draws."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from jsonargparse import Namespace
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.class_paths import instantiate

__all__ = ["NumberSeededSampler", "build_sampler"]


class NumberSeededSampler(BaseSampler):
    """Seeds a sampler anew for every trial, from the study's seed and the trial's number.

    A seeded sampler alone would start over in a new process and propose the same points again; so a study that was
    interrupted draws what an uninterrupted one draws.

    Args:
        build: Makes the sampler for a seed.
        seed: Seed of the study.
        first: Values of the first trials by parameter. What a trial cannot have of them, and what they do not name, is
            drawn at random. They follow from the trial's number, too: no trial has to wait in Optuna's queue for them,
            where it would look like a parked one.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int, first: Sequence[Mapping[str, Any]] = ()) -> None:
        self._build = build
        self._seed = seed
        self._first = first
        self._sampler = build(seed)
        self.exhausted = False
        """Whether the sampler has said that there is nothing left to draw."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        self._sampler = RandomSampler(seed) if trial.number < len(self._first) else self._build(seed)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler says."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler says."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value that this trial shall have, or as the sampler says."""
        point = self._first[trial.number] if trial.number < len(self._first) else {}
        if param_name in point and _held(param_distribution, point[param_name]):
            return point[param_name]
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """As the sampler says; where it asks `Study.optimize` to stop, which does not run here, that is noted."""
        if trial.number < len(self._first):
            return
        try:
            self._sampler.after_trial(study, trial, state, values)
        except RuntimeError as error:
            if "Study.stop" not in str(error):
                raise
            self.exhausted = True


def _name(config: Namespace) -> str:
    return str(config.class_path).rpartition(".")[2]


def _held(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False


def build_sampler(config: Namespace | None, seed: int, first: Sequence[Mapping[str, Any]] = ()) -> BaseSampler:
    """The configured sampler, seeded for every trial by its number.

    Args:
        config: Class path and arguments of a sampler, or None for multivariate grouped TPE.
        seed: Seed of the study.
        first: Values of the first trials by parameter.
    """

    def build(trial_seed: int) -> BaseSampler:
        if config is None:
            return _default_sampler(trial_seed)
        seeded = config.clone()
        if "seed" in seeded.init_args:
            # A grid has its order from the seed, and its place in that order from the study.
            seeded.init_args.seed = seed if _name(seeded) == "GridSampler" else trial_seed
        sampler: BaseSampler = instantiate(BaseSampler, seeded, "--study.sampler")
        return sampler

    return NumberSeededSampler(build, seed, first)


def _default_sampler(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # "group" has been called experimental since 2021; it is what lets TPE model conditional flags together.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, seed=seed)
