"""Search space of a study: flags of `fit` with ranges and choices, which Optuna samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.errors import nearest
from lightning_hpo.config.flags import flags
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.bounds import range_problems, value_problems
from lightning_hpo.search.dimension import Dimension, Suggesting, drawn_from, label
from lightning_hpo.search.entries import condition_problems, limit_problems, parents_first, read_entries
from lightning_hpo.search.warm_start import WarmStart, distinct_points

__all__ = ["SearchSpace"]

# They change the evaluation, or only the random draw.
_NOT_SEARCHABLE = {
    "model",
    "data",
    "seed_everything",
    "trainer.limit_val_batches",
    "trainer.val_check_interval",
    "trainer.check_val_every_n_epoch",
    "trainer.overfit_batches",
    "trainer.fast_dev_run",
    "trainer.num_sanity_val_steps",
}


class SearchSpace:
    """The searched flags of a study. All checks are made here, before anything is written.

    Args:
        config: Range or choices of each flag, as in YAML: `{low, high, step, log, at_most}` or `{choices}`, both
            with an optional `when`.
        base: The config that the flags belong to.
        not_searchable: Further flags that must not be searched, because they change the evaluation.
        warm_start: The start from another study, which fixes flags (to the values in `base`) and narrows ranges.

    Raises:
        InputError: If flags cannot be searched, with one line for each problem.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        base: Mapping[str, Any],
        not_searchable: Sequence[str] = (),
        warm_start: WarmStart | None = None,
    ) -> None:
        known = flags(base)
        dimensions, problems = read_entries(config)
        problems += _flag_problems(config, known, {*_NOT_SEARCHABLE, *not_searchable})
        problems += condition_problems(dimensions)
        if not problems:
            dimensions = parents_first({flag: _widened(each, base) for flag, each in dimensions.items()})
            if warm_start is not None:
                dimensions = {flag: _warm_started(each, warm_start, known[flag]) for flag, each in dimensions.items()}
            problems = limit_problems(dimensions) or value_problems(dimensions, base)
            problems = problems or range_problems(dimensions, base)
        if problems:
            raise InputError(problems)
        self.dimensions = dimensions
        self._config_values = {flag: known[flag] for flag in dimensions}
        self._defaults = {flag: label(known[flag]) for flag in dimensions}

    def first_points(self, further: Sequence[Mapping[str, Any]] = ()) -> list[Mapping[str, Any]]:
        """Return the points of the first trials, without duplicates: the defaults, then further points.

        All values are as Optuna stores them. They may be out of range: the sampler checks them.
        """
        sampled = [flag for flag, dimension in self.dimensions.items() if not dimension.fixed]
        return distinct_points((self._defaults, *further), sampled)

    def defaults_outside(self) -> list[str]:
        """Return a line for each flag whose value in the config its range does not hold: the first trial draws it."""
        values: dict[str, Any] = {}
        lines = []
        for flag, dimension in self.dimensions.items():
            if not dimension.sampled_with(values):
                continue
            values[flag] = self._config_values[flag]
            if not dimension.within(values).contains(values[flag]):
                shown = "no value" if values[flag] is None else values[flag]
                lines.append(
                    f"search_space: {flag}: the config has {shown}, which is not in the search space, so the first "
                    "trial draws another"
                )
        return lines

    def suggest(self, trial: Suggesting) -> dict[str, Any]:
        """Return the trial's values by flag, without fixed flags and flags whose condition is false."""
        values: dict[str, Any] = {}
        for flag, dimension in self.dimensions.items():
            if dimension.sampled_with(values):
                values[flag] = dimension.within(values).suggest(trial)
        return {flag: value for flag, value in values.items() if not self.dimensions[flag].fixed}

    def points(self, grid: Mapping[str, Sequence[Any]] | None = None) -> Iterator[dict[str, Any]] | None:
        """Return all points as Optuna stores them, or None if there are infinitely many.

        Args:
            grid: The only values of some flags, as Optuna stores them.
        """
        given = dict(grid or {})
        if any(each.values is None for flag, each in self.dimensions.items() if flag not in given):
            return None
        return self._points(list(self.dimensions.values()), {}, given)

    def _points(
        self, dimensions: Sequence[Dimension], values: dict[str, Any], grid: Mapping[str, Sequence[Any]]
    ) -> Iterator[dict[str, Any]]:
        """Yield each point that extends `values` with values of `dimensions`."""
        if not dimensions:
            yield {flag: label(value) for flag, value in values.items() if not self.dimensions[flag].fixed}
            return
        first, *rest = dimensions
        if not first.sampled_with(values):
            yield from self._points(rest, values, grid)
            return
        limited = first.within(values)
        possible = limited.values if first.flag not in grid else limited.values_among(grid[first.flag])
        for value in possible or ():
            yield from self._points(rest, {**values, first.flag: value}, grid)

    def mismatches(self, study: optuna.Study) -> list[str]:
        """Return a line for each flag whose choices, kind, scale or step has changed. Range ends may change.

        Optuna cannot change the choices, the kind or the scale of a parameter, and it forgets the old step.
        """
        stored: dict[str, set[BaseDistribution]] = {}
        for trial in study.get_trials(deepcopy=False):
            for flag, distribution in trial.distributions.items():
                stored.setdefault(flag, set()).add(distribution)
        problems = []
        for flag, dimension in self.dimensions.items():
            now = "" if dimension.fixed else drawn_from(dimension.distribution)
            others = {drawn_from(each) for each in stored.get(flag, ())} - {now, ""}
            if now and others:
                problems.append(
                    f"search_space: {flag}: got {now}, but the study began with {min(others)}; "
                    "use that, or use another --study.name"
                )
        return problems

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The choices of each categorical flag."""
        return {flag: dimension.choices for flag, dimension in self.dimensions.items() if dimension.choices}


def _flag_problems(config: Mapping[Any, Any], known: Mapping[str, Any], not_searchable: set[str]) -> list[str]:
    names = [flag for flag in config if isinstance(flag, str)]
    unknown = [
        f"search_space: {flag}: `fit` has no such flag{nearest(flag, known) or '; `fit --help` lists all flags'}"
        for flag in names
        if flag not in known
    ]
    parents = not_searchable - {"model", "data"}  # the class paths of the sections, whose other flags are searched
    return unknown + [
        f"search_space: {flag}: must not be searched (changes evaluation or seed); set it in the config"
        for flag in names
        if flag in not_searchable or any(flag.startswith(f"{parent}.") for parent in parents)
    ]


def _widened(dimension: Dimension, base: Mapping[str, Any]) -> Dimension:
    """Return a range of floats if the ends are integers, but the flag accepts floats."""
    if dimension.choices or not dimension.is_integer or dimension.step is not None:
        return dimension
    try:
        resolve(base, {dimension.flag: dimension.low + 0.5})
    except InputError:
        return dimension
    return replace(dimension, low=float(dimension.low), high=float(dimension.high))


def _warm_started(dimension: Dimension, warm_start: WarmStart, default: Any) -> Dimension:
    """Return the dimension fixed or narrowed, as the warm start requires."""
    if dimension.flag in warm_start.fix:
        return dimension.fixed_at(default)
    around = warm_start.best.get(dimension.flag)
    if warm_start.narrow is None or not isinstance(around, int | float):
        return dimension
    return dimension.narrowed(around, warm_start.narrow)
