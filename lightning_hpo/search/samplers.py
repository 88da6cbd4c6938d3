"""Optuna samplers by class path. A resumed study draws the same values as an uninterrupted one."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from jsonargparse import Namespace
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.flags import instantiate

__all__ = ["NumberSeededSampler", "build_sampler"]


class NumberSeededSampler(BaseSampler):
    """Sampler that is seeded for each trial from the study's seed and the trial's number.

    A sampler seeded once would start again from its seed in a new process, and propose the same points again.

    Args:
        build: Creates the wrapped sampler for a seed.
        seed: Seed of the study.
        first: Parameter values of the first trials, by trial number. Missing or impossible values are drawn at random.
            `study.enqueue_trial` is not used, because an enqueued trial looks like a paused one.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int, first: Sequence[Mapping[str, Any]] = ()) -> None:
        self._build = build
        self._seed = seed
        self._first = first
        self._sampler = build(seed)
        self.exhausted = False
        """Whether the wrapped sampler has no values left to draw."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Create the sampler of this trial."""
        seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
        self._sampler = RandomSampler(seed) if trial.number < len(self._first) else self._build(seed)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Delegate to the wrapped sampler."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Delegate to the wrapped sampler."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the given value of this trial, or delegate to the wrapped sampler."""
        point = self._first[trial.number] if trial.number < len(self._first) else {}
        if param_name in point and _contains(param_distribution, point[param_name]):
            return point[param_name]
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


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a value is in a distribution. Optuna's public check is part of `create_trial`."""
    try:
        optuna.trial.create_trial(value=0.0, params={"value": value}, distributions={"value": distribution})
    except (TypeError, ValueError):
        return False
    return True


def build_sampler(config: Namespace | None, seed: int, first: Sequence[Mapping[str, Any]] = ()) -> BaseSampler:
    """Create the configured sampler (default: multivariate grouped TPE) in a `NumberSeededSampler`."""

    def build(trial_seed: int) -> BaseSampler:
        if config is None:
            return _default_sampler(trial_seed)
        seeded = config.clone()
        if "seed" in seeded.init_args:
            # GridSampler shuffles its grid by the seed, so the seed must be the same in every trial.
            seeded.init_args.seed = seed if config.class_path.endswith(".GridSampler") else trial_seed
        sampler: BaseSampler = instantiate(BaseSampler, seeded, "--study.sampler")
        return sampler

    return NumberSeededSampler(build, seed, first)


def _default_sampler(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # "group" lets TPE model conditional flags together. Optuna has marked it experimental since 2021.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, seed=seed)
