"""Entries of the `search_space` section: their syntax, and the conditions between them."""

import math
from collections.abc import Mapping
from typing import Any

from lightning_hpo.config.errors import nearest
from lightning_hpo.search.dimension import Dimension, label

__all__ = ["condition_problems", "limit_problems", "parents_first", "read_entries"]

_KEYS = {"low", "high", "step", "log", "choices", "when", "at_most"}


def read_entries(config: Mapping[Any, Any]) -> tuple[dict[str, Dimension], list[str]]:
    """Return the dimensions of all valid entries by flag, and the problems of the other entries, one line each."""
    problems: list[str] = []
    dimensions: dict[str, Dimension] = {}
    for flag, entry in config.items():
        found = _entry_problems(flag, entry)
        problems += found
        if not found:
            ranges = {key: value for key, value in entry.items() if key != "choices"}
            dimensions[flag] = Dimension(flag, choices=tuple(entry.get("choices", ())), **ranges)
    return dimensions, problems


def _entry_problems(flag: Any, entry: Any) -> list[str]:
    where = f"search_space: {flag}"
    if not isinstance(flag, str):
        return [f"{where}: is not a flag; use a flag of `fit` as key, such as model.optim.lr"]
    if not isinstance(entry, dict):
        return [f"{where}: got {entry!r}; use {{low: ..., high: ...}} or {{choices: [...]}}"]
    unknown = sorted(str(key) for key in set(entry) - _KEYS)
    if unknown:
        return [f"{where}: unknown {key!r}{nearest(key, _KEYS)}; use {', '.join(sorted(_KEYS))}" for key in unknown]
    if ("choices" in entry) == ("low" in entry or "high" in entry):
        return [f"{where}: got {entry!r}; use either choices, or low and high"]
    if not isinstance(entry.get("when", {}), dict):
        return [f"{where}: when: got {entry['when']!r}; use {{other.flag: value}}"]
    if "choices" in entry and "at_most" in entry:
        return [f"{where}: at_most: got choices; use low and high instead"]
    if not _are_shares(entry.get("at_most", {})):
        return [f"{where}: at_most: got {entry['at_most']!r}; use {{other.flag: share of its value, such as 0.5}}"]
    return _choice_problems(where, entry["choices"]) if "choices" in entry else _range_problems(where, entry)


def _are_shares(value: Any) -> bool:
    numbers = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(number, int | float) and 0 < number < math.inf for number in numbers)


def _choice_problems(where: str, choices: Any) -> list[str]:
    if not isinstance(choices, list) or not choices:
        return [f"{where}: choices: got {choices!r}; use a list with at least one value"]
    labels = [repr(label(choice)) for choice in choices]
    twice = [repr(choice) for place, choice in enumerate(choices) if labels[place] in labels[:place]]
    return [f"{where}: choices: got {', '.join(twice)} twice; list each value once"] if twice else []


def _range_problems(where: str, entry: Mapping[str, Any]) -> list[str]:
    problems = []
    for end in ("low", "high", "step"):
        value = entry.get(end, 0)
        if isinstance(value, str | bool) or not isinstance(value, int | float) or not math.isfinite(value):
            hint = " (YAML reads 1e-4 as text; write 1.0e-4)" if isinstance(value, str) else ""
            problems.append(f"{where}: {end}: got {value!r}; use a number{hint}")
    missing = [end for end in ("low", "high") if end not in entry]
    problems += [f"{where}: {end}: missing; a range needs low and high" for end in missing]
    if problems:
        return problems
    low, high, step, log = entry["low"], entry["high"], entry.get("step"), entry.get("log", False)
    if low >= high:
        problems.append(f"{where}: got an empty range, low {low} and high {high}; low must be below high")
    if not isinstance(log, bool):
        problems.append(f"{where}: log: got {log!r}; use true or false")
    elif log and low <= 0:
        problems.append(f"{where}: log: got low {low}; a logarithmic range must start above 0")
    if step is not None and (step <= 0 or log):
        problems.append(f"{where}: step: got {step}; use a number above 0, and not together with log: true")
    return problems


def condition_problems(dimensions: Mapping[str, Dimension]) -> list[str]:
    """Return the problems of all `when` and `at_most` conditions, one line each."""
    problems = _when_problems(dimensions) + limit_problems(dimensions)
    circle = [flag for flag in dimensions if flag not in parents_first(dimensions)]
    if circle and not problems:
        flags = ", ".join(circle)
        problems.append(f"search_space: when, at_most: conditions depend on each other in a circle: {flags}")
    return problems


def _when_problems(dimensions: Mapping[str, Dimension]) -> list[str]:
    problems = []
    for dimension in dimensions.values():
        for other, wanted in dimension.when.items():
            where = f"search_space: {dimension.flag}: when: {other}"
            values = wanted if isinstance(wanted, list) else [wanted]
            parent = dimensions.get(other)
            if parent is None:
                problems.append(f"{where} is not searched{nearest(other, dimensions) or '; add it to search_space'}")
            elif not any(parent.contains(value) for value in values):
                possible = f"of {list(parent.choices)}" if parent.choices else f"from {parent.low} to {parent.high}"
                problems.append(f"{where}: got {wanted!r}; use a value {possible}")
    return problems


def limit_problems(dimensions: Mapping[str, Dimension]) -> list[str]:
    """Return the problems of all `at_most` limits, one line each."""
    problems = []
    for dimension in dimensions.values():
        for other, share in dimension.at_most.items():
            where = f"search_space: {dimension.flag}: at_most: {other}"
            if other not in dimensions:
                problems.append(f"{where} is not searched{nearest(other, dimensions) or '; add it to search_space'}")
            elif not all(isinstance(value, int | float) for value in dimensions[other].ends):
                problems.append(f"{where}: got choices that are not numbers; use a flag with numbers")
            elif share * (least := min(dimensions[other].ends)) < dimension.low:
                limit = f"{share:g} x {least:g} = {share * least:g}, below low: {dimension.low}"
                problems.append(f"{where}: the range would end at {limit}; raise the share or reduce low")
    return problems


def parents_first(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """Return the dimensions, each after those in its conditions. Dimensions in a circle are left out."""
    ordered: dict[str, Dimension] = {}
    while ready := {
        flag: dimension
        for flag, dimension in dimensions.items()
        if flag not in ordered and {*dimension.when, *dimension.at_most} <= set(ordered)
    }:
        ordered |= ready
    return ordered
