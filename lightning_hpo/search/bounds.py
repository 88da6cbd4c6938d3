"""The outermost values of a search space, given to the rules of the flags that they are for."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from lightning_hpo.config.flags import class_of, flags, with_flags
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.dimension import Dimension

__all__ = ["corners", "range_problems"]

# What the Trainer lets pass, and then trains no step, or up the gradient.
_LEAST = {"trainer.max_epochs": 1, "trainer.accumulate_grad_batches": 1, "trainer.gradient_clip_val": 0}


def corners(dimensions: Mapping[str, Dimension], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The outermost values of some flags, in every combination that a trial may have.

    Args:
        dimensions: The searched flags, each behind those of its condition.
        wanted: Names of flags; those that are not searched are passed over.

    Returns:
        Values by flag: of those that are wanted, of those that their conditions depend on, and of those whose range
        they end. A flag whose condition does not hold is left out.
    """
    needed = _with_conditions(dimensions, wanted)
    found: list[dict[str, Any]] = [{}]
    for flag in (flag for flag in dimensions if flag in needed):
        waited_for = _waited_for(dimensions, flag, needed)
        found = [further for corner in found for further in _further(corner, dimensions[flag], waited_for)]
    return found


def _further(corner: dict[str, Any], dimension: Dimension, waited_for: Sequence[Any]) -> list[dict[str, Any]]:
    """A corner with each outermost value of one more flag; as it is where that is not sampled."""
    if not dimension.sampled_with(corner):
        return [corner]
    values = (*dimension.within(corner).ends, *waited_for)
    return [{**corner, dimension.flag: value} for place, value in enumerate(values) if value not in values[:place]]


def _with_conditions(dimensions: Mapping[str, Dimension], wanted: Sequence[str]) -> set[str]:
    needed = {flag for flag in wanted if flag in dimensions}
    # What ends with another flag's value never goes with that value as the config has it.
    needed |= {flag for flag, dimension in dimensions.items() if needed & set(dimension.at_most)}
    for flag in reversed(list(dimensions)):
        needed |= {*dimensions[flag].when, *dimensions[flag].at_most} if flag in needed else set()
    return needed


def _waited_for(dimensions: Mapping[str, Dimension], flag: str, needed: set[str]) -> list[Any]:
    """Values of a flag within its range that the conditions of other flags ask for."""
    wanted = [dimensions[other].when[flag] for other in needed if flag in dimensions[other].when]
    values = [value for entry in wanted for value in (entry if isinstance(entry, list) else [entry])]
    low, high, choices = dimensions[flag].low, dimensions[flag].high, dimensions[flag].choices
    return [value for value in values if (value in choices if choices else low <= value <= high)]


def range_problems(dimensions: Mapping[str, Dimension], base: Mapping[str, Any]) -> list[str]:
    """What the flags' own rules refuse at the ends of the ranges and among the choices, a line each.

    Each flag is looked at under the conditions in which it is sampled, then two of the same group together, such as
    `data.max_length` and `data.stride`.

    Args:
        dimensions: The searched flags, each behind those of its condition, with values of the right types.
        base: The config that the flags belong to; what is wrong with it already is not told here.
    """
    told = set(_flag_problems(base))
    lines: list[str] = []
    pairs = [pair for pair in combinations(dimensions, 2) if _group(pair[0]) == _group(pair[1])]
    for names in [*((flag,) for flag in dimensions), *pairs]:
        for corner in corners(dimensions, names):
            new = [problem for problem in _flag_problems(with_flags(base, corner)) if problem not in told]
            told.update(new)
            at = " with ".join(f"{flag}: {corner[flag]!r}" for flag in names if flag in corner)
            lines += [f"search_space: {at} is refused by the flag: {problem}" for problem in new]
    return lines


def _group(flag: str) -> str:
    return flag.rpartition(".")[0]


def _flag_problems(config: Mapping[str, Any]) -> list[str]:
    """What the rules of the modules' flags refuse of a config; no module is made."""
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
