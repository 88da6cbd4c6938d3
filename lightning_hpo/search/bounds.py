"""Bounds of a search space: its outermost values, checked against the types and rules of the flags."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import class_of, flags, with_flags
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.dimension import Dimension

__all__ = ["corners", "range_problems", "value_problems"]

# The Trainer accepts lower values, but then trains no step, or clips to a negative norm.
_LEAST = {"trainer.max_epochs": 1, "trainer.accumulate_grad_batches": 1, "trainer.gradient_clip_val": 0}


def corners(dimensions: Mapping[str, Dimension], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Return the outermost values of some flags, in every combination that a trial may have.

    Each dimension must stand after those in its conditions. Wanted flags that are not searched are ignored.

    Returns:
        Values by flag: of the wanted flags, of the flags in their conditions, and of the flags that they limit. A flag
        whose condition is false is left out.
    """
    needed = _with_conditions(dimensions, wanted)
    found: list[dict[str, Any]] = [{}]
    for flag in (flag for flag in dimensions if flag in needed):
        inner = _values_in_conditions(dimensions, flag, needed)
        found = [extended for corner in found for extended in _extended(corner, dimensions[flag], inner)]
    return found


def _extended(corner: dict[str, Any], dimension: Dimension, inner: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the corner with each outermost value of one more flag, or unchanged if the flag is not sampled in it."""
    if not dimension.sampled_with(corner):
        return [corner]
    values = (*dimension.within(corner).ends, *inner)
    return [{**corner, dimension.flag: value} for place, value in enumerate(values) if value not in values[:place]]


def _with_conditions(dimensions: Mapping[str, Dimension], wanted: Sequence[str]) -> set[str]:
    needed = {flag for flag in wanted if flag in dimensions}
    # A flag that a wanted flag limits is always sampled within the limit; its config value does not apply.
    needed |= {flag for flag, dimension in dimensions.items() if needed & set(dimension.at_most)}
    for flag in reversed(list(dimensions)):
        needed |= {*dimensions[flag].when, *dimensions[flag].at_most} if flag in needed else set()
    return needed


def _values_in_conditions(dimensions: Mapping[str, Dimension], flag: str, needed: set[str]) -> list[Any]:
    """Return the possible values of a flag that the conditions of other flags name."""
    wanted = [dimensions[other].when[flag] for other in needed if flag in dimensions[other].when]
    values = [value for entry in wanted for value in (entry if isinstance(entry, list) else [entry])]
    return [value for value in values if dimensions[flag].contains(value)]


def value_problems(dimensions: Mapping[str, Dimension], base: Mapping[str, Any]) -> list[str]:
    """Return a line for each value that does not fit the type of its flag."""
    try:
        # Valid spaces are the usual case, so one value of every flag is checked at the same time.
        for position in range(max((len(dimension.extremes) for dimension in dimensions.values()), default=0)):
            resolve(base, {flag: d.extremes[min(position, len(d.extremes) - 1)] for flag, d in dimensions.items()})
    except InputError:
        return [line for dimension in dimensions.values() for line in _problems_of(dimension, base)]
    return []


def _problems_of(dimension: Dimension, base: Mapping[str, Any]) -> list[str]:
    problems = []
    for value in dimension.extremes:
        try:
            resolve(base, {dimension.flag: value})
        except InputError as error:
            problems.append(f"search_space: {dimension.flag}: {value!r} is not valid: {error.problems[0]}")
    return problems


def range_problems(dimensions: Mapping[str, Dimension], base: Mapping[str, Any]) -> list[str]:
    """Return a line for each outermost value that violates a rule of the flags.

    Each flag is checked under the conditions in which it is sampled, then every two flags of a group together, such as
    `data.max_length` and `data.stride`. Problems of the config itself are not reported here.
    """
    reported = set(_flag_problems(base))
    lines: list[str] = []
    pairs = [pair for pair in combinations(dimensions, 2) if _group(pair[0]) == _group(pair[1])]
    for names in [*((flag,) for flag in dimensions), *pairs]:
        for corner in corners(dimensions, names):
            new = [problem for problem in _flag_problems(with_flags(base, corner)) if problem not in reported]
            reported.update(new)
            at = " with ".join(f"{flag}: {corner[flag]!r}" for flag in names if flag in corner)
            lines += [f"search_space: {at} is not valid: {problem}" for problem in new]
    return lines


def _group(flag: str) -> str:
    return flag.rpartition(".")[0]


def _flag_problems(config: Mapping[str, Any]) -> list[str]:
    """Return the problems of a config by the rules of its flags, without creating a module."""
    problems = [
        f"--{flag}: got {value}; it must be {_LEAST[flag]} or more"
        for flag, value in flags(config).items()
        if flag in _LEAST and isinstance(value, int | float) and value < _LEAST[flag]
    ]
    for section in ("model", "data"):
        rules = getattr(class_of(config[section]), "flag_problems", None) if config.get(section) else None
        problems += rules(config[section].get("init_args") or {}) if rules else []
    try:
        Augmentation(**config["aug"])
    except InputError as error:
        problems += error.problems
    return problems
