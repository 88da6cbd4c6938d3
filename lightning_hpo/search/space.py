"""The search space: flags of `fit` with ranges and choices, sampled by Optuna, checked before anything is written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.errors import nearest
from lightning_hpo.config.flags import flags
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.bounds import corners, range_problems
from lightning_hpo.search.dimension import Dimension, label
from lightning_hpo.search.warm_start import WarmStart

__all__ = ["SearchSpace"]

_KEYS = {"low", "high", "step", "log", "choices", "when", "at_most"}
_MEASURING = {
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
    """The searched flags of a study.

    Args:
        config: Ranges and choices by flag, as in YAML: `{low, high, step, log, at_most}` or
            `{choices}`, each also with `when`.
        base: The config that the flags belong to.
        measures: Flags that would change what is measured, beside the Trainer's own.
        warm_start: What fixes flags, to what the base has, and narrows ranges; None where nothing does.

    Raises:
        InputError: Everything in it that cannot be searched, a line each.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        base: Mapping[str, Any],
        measures: Sequence[str] = (),
        warm_start: WarmStart | None = None,
    ) -> None:
        problems: list[str] = []
        dimensions: dict[str, Dimension] = {}
        for flag, entry in config.items():
            found = _entry_problems(flag, entry)
            problems += found
            if not found:
                dimensions[flag] = _dimension(flag, entry)
        known = flags(base)
        config = {flag: entry for flag, entry in config.items() if isinstance(flag, str)}
        problems += _unknown(config, known) + _measuring(config, {*_MEASURING, *measures}) + _conditions(dimensions)
        if not problems:
            dimensions = {flag: _widened(dimension, base) for flag, dimension in dimensions.items()}
            dimensions = _parents_first(dimensions)
            if warm_start is not None:
                dimensions = {flag: _staged(each, warm_start, known[flag]) for flag, each in dimensions.items()}
            problems = _limit_problems(dimensions) or _refused(dimensions, base) or range_problems(dimensions, base)
        if problems:
            raise InputError(problems)
        self.dimensions = dimensions
        self._defaults = {flag: label(known[flag]) for flag in dimensions}

    def first_points(self, further: Sequence[Mapping[str, Any]] = ()) -> list[Mapping[str, Any]]:
        """What the first trials try: the defaults, then some points; none twice.

        Args:
            further: Values by flag, as Optuna stores them.

        Returns:
            Such values of the flags that are searched. Whether a trial can have them shows when it is drawn.
        """
        points: list[Mapping[str, Any]] = []
        for values in (self._defaults, *further):
            point = {f: values[f] for f, dimension in self.dimensions.items() if f in values and not dimension.fixed}
            if point and point not in points:
                points.append(point)
        return points

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's values by flag; a flag that is fixed, or whose condition does not hold, is left out."""
        values: dict[str, Any] = {}
        for flag, dimension in self.dimensions.items():
            if dimension.sampled_with(values):
                values[flag] = dimension.within(values).suggest(trial)
        return {flag: value for flag, value in values.items() if not self.dimensions[flag].fixed}

    def corners(self, flags: Sequence[str]) -> list[dict[str, Any]]:
        """The outermost values of some flags, in every combination that a trial may have; see `extremes.corners`."""
        return corners(self.dimensions, flags)

    def mismatches(self, study: optuna.Study) -> list[str]:
        """Choices that differ from those that the study was started with: Optuna cannot change them in mid-study."""
        had: dict[str, Any] = {}
        for trial in study.get_trials(deepcopy=False):
            had |= trial.distributions
        problems = []
        for flag, choices in self.choices.items():
            labels = tuple(label(choice) for choice in choices)
            before = getattr(had.get(flag), "choices", labels)
            if before != labels:
                problems.append(
                    f"search_space: {flag}: the study was started with the choices {list(before)}, and now there are "
                    f"{list(labels)}; go on with the same, or give the study another --study.name"
                )
        return problems

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The choices of each categorical flag."""
        return {flag: dimension.choices for flag, dimension in self.dimensions.items() if dimension.choices}


def _entry_problems(flag: Any, entry: Any) -> list[str]:
    where = f"search_space: {flag}"
    if not isinstance(flag, str):
        return [f"{where}: is no flag; a key is a flag of `fit`, such as model.optim.lr"]
    if not isinstance(entry, dict):
        return [f"{where}: got {entry!r}; use {{low: ..., high: ...}} or {{choices: [...]}}"]
    unknown = sorted(str(key) for key in set(entry) - _KEYS)
    if unknown:
        return [f"{where}: unknown {key!r}{nearest(key, _KEYS)}; use {', '.join(sorted(_KEYS))}" for key in unknown]
    if ("choices" in entry) == ("low" in entry or "high" in entry):
        return [f"{where}: use either choices, or low and high"]
    if not isinstance(entry.get("when", {}), dict):
        return [f"{where}: when: got {entry['when']!r}; use {{other.flag: value}}"]
    if "choices" in entry and "at_most" in entry:
        return [f"{where}: at_most: it ends a range, and there are choices; use low and high"]
    if not _are_shares(entry.get("at_most", {})):
        return [f"{where}: at_most: got {entry['at_most']!r}; use {{other.flag: share of its value, such as 0.5}}"]
    return _choice_problems(where, entry) if "choices" in entry else _range_problems(where, entry)


def _are_shares(value: Any) -> bool:
    numbers = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(number, int | float) and 0 < number < math.inf for number in numbers)


def _choice_problems(where: str, entry: Mapping[str, Any]) -> list[str]:
    choices = entry["choices"]
    if not isinstance(choices, list) or not choices:
        return [f"{where}: choices: got {choices!r}; use a list with at least one value"]
    labels = [repr(label(choice)) for choice in choices]
    return [f"{where}: choices: a value stands there twice"] if len(set(labels)) < len(labels) else []


def _range_problems(where: str, entry: Mapping[str, Any]) -> list[str]:
    problems = []
    for end in ("low", "high", "step"):
        value = entry.get(end, 0)
        if isinstance(value, str | bool) or not isinstance(value, int | float) or not math.isfinite(value):
            hint = " (YAML reads 1e-4 as text; write 1.0e-4)" if isinstance(value, str) else ""
            problems.append(f"{where}: {end}: got {value!r}; use a number{hint}")
    missing = [end for end in ("low", "high") if end not in entry]
    problems += [f"{where}: {end} is missing" for end in missing]
    if problems:
        return problems
    low, high, step, log = entry["low"], entry["high"], entry.get("step"), entry.get("log", False)
    if low >= high:
        problems.append(f"{where}: the range is empty: low {low}, high {high}; low must be below high")
    if not isinstance(log, bool):
        problems.append(f"{where}: log: got {log!r}; use true or false")
    elif log and low <= 0:
        problems.append(f"{where}: log: low is {low}; a logarithmic range starts above 0")
    if step is not None and (step <= 0 or log):
        problems.append(f"{where}: step: got {step}; use a number above 0, and not together with log: true")
    return problems


def _dimension(flag: str, entry: Mapping[str, Any]) -> Dimension:
    rest = {key: value for key, value in entry.items() if key != "choices"}
    return Dimension(flag, choices=tuple(entry.get("choices", ())), **rest)


def _unknown(config: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    lines = [(flag, f"search_space: {flag}: `fit` has no such flag{nearest(flag, known)}") for flag in config]
    return [line for flag, line in lines if flag not in known]


def _measuring(config: Mapping[str, Any], measuring: set[str]) -> list[str]:
    return [
        f"search_space: {flag}: changes what is measured, so trials could not be compared; set it in the config"
        for flag in config
        if flag in measuring
    ]


def _conditions(dimensions: Mapping[str, Dimension]) -> list[str]:
    problems = []
    for flag, dimension in dimensions.items():
        for other, wanted in dimension.when.items():
            if other not in dimensions:
                problems.append(f"search_space: {flag}: when: {other} is not searched{nearest(other, dimensions)}")
            elif _never(dimensions[other], wanted):
                problems.append(f"search_space: {flag}: when: {other} can never be {wanted!r}")
    problems += _limit_problems(dimensions)
    if not problems and len(_parents_first(dimensions)) < len(dimensions):
        problems.append("search_space: when, at_most: conditions wait for each other in a circle")
    return problems


def _limit_problems(dimensions: Mapping[str, Dimension]) -> list[str]:
    lines = [_limit_problem(each, other, dimensions) for each in dimensions.values() for other in each.at_most]
    return [line for line in lines if line]


def _limit_problem(dimension: Dimension, other: str, dimensions: Mapping[str, Dimension]) -> str:
    where = f"search_space: {dimension.flag}: at_most: {other}"
    if other not in dimensions:
        return f"{where} is not searched{nearest(other, dimensions)}"
    values = dimensions[other].ends
    if not all(isinstance(value, int | float) for value in values):
        return f"{where} has choices that are no numbers"
    least = dimension.at_most[other] * min(values)
    if least < dimension.low:
        return f"{where} ends the range at {least:g} where it is {min(values)}, below low: {dimension.low}"
    return ""


def _never(dimension: Dimension, wanted: Any) -> bool:
    values = wanted if isinstance(wanted, list) else [wanted]
    if dimension.choices:
        return not any(value in dimension.choices for value in values)
    return not any(isinstance(value, int | float) and dimension.low <= value <= dimension.high for value in values)


def _parents_first(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    ordered: dict[str, Dimension] = {}
    while ready := {
        flag: dimension
        for flag, dimension in dimensions.items()
        if flag not in ordered and {*dimension.when, *dimension.at_most} <= set(ordered)
    }:
        ordered |= ready
    return ordered


def _widened(dimension: Dimension, base: Mapping[str, Any]) -> Dimension:
    """A range of whole numbers over a flag that takes fractions means the fractions, too."""
    if dimension.choices or not dimension.whole or dimension.step is not None:
        return dimension
    if _accepts(base, dimension.flag, dimension.low + 0.5):
        return replace(dimension, low=float(dimension.low), high=float(dimension.high))
    return dimension


def _staged(dimension: Dimension, warm_start: WarmStart, default: Any) -> Dimension:
    """A dimension as it is in a study that starts from another one."""
    if dimension.flag in warm_start.fix:
        return dimension.fixed_at(default)
    around = warm_start.best.get(dimension.flag)
    if warm_start.narrow is None or not isinstance(around, int | float):
        return dimension
    return dimension.narrowed(around, warm_start.narrow)


def _accepts(base: Mapping[str, Any], flag: str, value: Any) -> bool:
    try:
        resolve(base, {flag: value})
    except InputError:
        return False
    return True


def _refused(dimensions: Mapping[str, Dimension], base: Mapping[str, Any]) -> list[str]:
    try:
        # One look at all first values finds nothing wrong in most spaces; only then is each value looked at alone.
        for position in range(max((len(dimension.extremes) for dimension in dimensions.values()), default=0)):
            resolve(base, {flag: d.extremes[min(position, len(d.extremes) - 1)] for flag, d in dimensions.items()})
    except InputError:
        return [line for dimension in dimensions.values() for line in _refused_values(dimension, base)]
    return []


def _refused_values(dimension: Dimension, base: Mapping[str, Any]) -> list[str]:
    problems = []
    for value in dimension.extremes:
        try:
            resolve(base, {dimension.flag: value})
        except InputError as error:
            problems.append(f"search_space: {dimension.flag}: {value!r} is refused by the flag: {error.problems[0]}")
    return problems
