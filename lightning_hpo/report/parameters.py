"""Pictures of the parameters: which of them mattered, which values went together, what each did to the score."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lightning_hpo.report.colours import BEST, COMPLETE, FIFTHS
from lightning_hpo.report.picture import Number, Panel, Picture, Series, broken, with_room
from lightning_hpo.report.study_record import StudyRecord, evenly, score

__all__ = ["importance", "importances", "parallel", "slices"]

_NO_SCORE = "No trial is complete, so there is no score to compare values by."
_NO_PARAMETER = "Nothing was searched: the trials have no parameters."
_ENOUGH = 50  # PED-ANOVA looks at the best tenth, and its authors want five trials in it.
_NOT_SET = -0.12
_WIDE = (-0.22, 1.2)  # so that what is written at an axis' ends has room
_MOST_LINES = 30
_CHARACTERS = 100  # from an axis' 0 to its 1
_LEAST_ROOM = 12  # characters; names that are broken any shorter are not read
_MOST_ROOM = 36  # characters; more would leave the picture at an axis' end
_AWAY = 0.25  # of what is written from its axis
_SMALL = 22  # characters of a label in one of several panels


def importances(record: StudyRecord) -> dict[str, float]:
    """Share of each parameter in what made the best tenth of the trials good; the largest first.

    It is PED-ANOVA (Watanabe, Bansal and Hutter 2023), with parameters that only some trials have, too.

    Returns:
        Shares that sum to 1; empty where they cannot be told.
    """
    searched = {name for trial in record.complete for name in trial.params}
    if len(record.complete) < 2 or not searched:
        return {}
    with warnings.catch_warnings():
        # The page says from how few trials it is.
        warnings.filterwarnings("ignore", "Some regimes for parameter", UserWarning)
        found = optuna.importance.get_param_importances(record.study)
    # Optuna gives all the same share where none has any, and one alone has all of it whatever it does.
    return found if max(found.values()) > min(found.values()) else {}


def importance(record: StudyRecord, shares: Mapping[str, float]) -> Picture:
    """A bar for the share of each parameter.

    Args:
        record: The study.
        shares: What `importances` gives.
    """
    name, title = "importance", "Importance of parameters"
    count = len(record.complete)
    if count < 2:
        return Picture(name, title, f"It takes two complete trials to compare; there {_are(count)}.")
    kinds = _tried(record)
    if len(kinds) < 2:
        return Picture(name, title, f"{next(iter(kinds))} alone was searched." if kinds else _NO_PARAMETER)
    if not shares:
        return Picture(name, title, f"The {count} complete trials do not tell the parameters apart.")
    places = [float(-place) for place in range(len(shares))]
    texts = [f"{flag}: {share:.1%}" for flag, share in shares.items()]
    bars = Series("", COMPLETE, list(shares.values()), places, kind="bars", texts=texts)
    ticks = {place: f"{flag} ({share:.0%})" for place, (flag, share) in zip(places, shares.items(), strict=True)}
    says = (
        f"How much each parameter sets the best tenth of the {count} complete trials apart (PED-ANOVA). Where only "
        "some trials have a parameter, having it counts as well."
    )
    if count < _ENOUGH:
        says += f" With fewer than {_ENOUGH} complete trials it is a hint and no more."
    return Picture(name, title, says, [Panel("share of the importance", "", [bars], y_ticks=ticks)])


def _are(count: int) -> str:
    return "is one" if count == 1 else "are none"


@dataclass(frozen=True)
class _Axis:
    """Where values stand between 0 and 1, and what is written where."""

    label: str
    place: Callable[[Any], float]
    notes: Sequence[tuple[float, str]]


def _axis(name: str, kind: BaseDistribution, values: Sequence[Any]) -> _Axis:
    if isinstance(kind, CategoricalDistribution):
        choices = _choices(kind, values)
        last = max(1, len(choices) - 1)
        return _Axis(
            name, lambda value: choices.index(str(value)) / last, [(i / last, each) for i, each in enumerate(choices)]
        )
    numbers = [float(value) for value in values if value is not None]
    return _number_axis(name, numbers, log=_is_log(kind))


def _number_axis(name: str, numbers: Sequence[float], *, log: bool = False) -> _Axis:
    """From the least to the greatest; of one value alone the middle."""
    scale: Callable[[float], float] = math.log if log else float
    low, high = min(numbers), max(numbers)
    if low == high:
        return _Axis(name, lambda value: 0.5, [(0.5, f"{low:.4g}")])  # noqa: ARG005
    ends = [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
    return _Axis(name, lambda value: (scale(value) - scale(low)) / (scale(high) - scale(low)), ends)


def _is_log(kind: BaseDistribution) -> bool:
    return isinstance(kind, FloatDistribution | IntDistribution) and kind.log


def _choices(kind: CategoricalDistribution, values: Sequence[Any]) -> list[str]:
    """The choices as they are written, those that some trial has tried."""
    tried = {str(value) for value in values if value is not None}
    return [str(choice) for choice in kind.choices if str(choice) in tried]


def _tried(record: StudyRecord) -> dict[str, BaseDistribution]:
    """Parameters that a complete trial has."""
    return {
        name: kind
        for name, kind in record.distributions.items()
        if any(name in trial.params for trial in record.complete)
    }


def parallel(record: StudyRecord, shares: Mapping[str, float]) -> Picture:
    """An axis for each parameter, the most important on top, and one for the score; a line for each complete trial.

    Args:
        record: The study.
        shares: What `importances` gives.
    """
    name, title = "parallel", "Parallel coordinates"
    kinds = _tried(record)
    if not record.complete or not kinds:
        return Picture(name, title, _NO_PARAMETER if record.complete else _NO_SCORE)
    flags = sorted(kinds, key=lambda flag: -shares.get(flag, 0.0))
    axes = [_axis(flag, kinds[flag], record.values(flag)) for flag in flags]
    axes.append(_number_axis(record.monitor, [score(trial) for trial in record.complete]))
    columns = [*(record.values(flag) for flag in flags), [score(trial) for trial in record.complete]]
    rows = list(zip(*columns, strict=True))
    series = [_trials(label, colour, record, axes, rows, chosen) for label, colour, chosen in _fifths(record)]
    if len(rows) == 1:
        series = []  # the best is all there is
    if record.best is not None:
        best = [record.complete.index(record.best)]
        series.append(_trials(f"best: trial {record.best.number}", BEST, record, axes, rows, best, width=2.5))
    notes = [(x, -place + y, text) for place, axis in enumerate(axes) for x, y, text in _spread(axis.notes)]
    lacking = [place for place, column in enumerate(columns) if None in column]
    notes += [(_NOT_SET, -place + _AWAY, "not set") for place in lacking]
    ticks = {float(-place): axis.label for place, axis in enumerate(axes)}
    says = (
        f"A line a complete trial, down through its value of every parameter to its {record.monitor}; the darker, the "
        "better. Parameters stand in the order of their importance."
    )
    if len(rows) > _MOST_LINES * len(FIFTHS):
        says += f" Of each fifth {_MOST_LINES} lines are drawn, evenly chosen: more would hide each other."
    panel = Panel("", "", series, x_ticks={}, y_ticks=ticks, notes=notes, x_range=_WIDE)
    return Picture(name, title, says, [panel])


def _fifths(record: StudyRecord) -> list[tuple[str, str, list[int]]]:
    """Name, colour and complete trials (by their place) of each fifth, the worst first."""
    ranked = sorted(range(len(record.complete)), key=lambda i: score(record.complete[i]), reverse=not record.maximizes)
    if len(ranked) < len(FIFTHS):
        return [("complete", COMPLETE, ranked)]
    names = ("worst fifth", "fourth fifth", "middle fifth", "second fifth", "best fifth")
    ends = [round(len(ranked) * part / len(FIFTHS)) for part in range(len(FIFTHS) + 1)]
    return [
        (name, colour, evenly(ranked[ends[part] : ends[part + 1]], _MOST_LINES))
        for part, (name, colour) in enumerate(zip(names, FIFTHS, strict=True))
    ]


def _trials(
    name: str,
    colour: str,
    record: StudyRecord,
    axes: Sequence[_Axis],
    rows: Sequence[Sequence[Any]],
    chosen: Sequence[int],
    width: float = 1.0,
) -> Series:
    marks: list[tuple[Number, Number, str]] = []
    for index in chosen:
        number = record.complete[index].number
        for place, (axis, value) in enumerate(zip(axes, rows[index], strict=True)):
            x = _NOT_SET if value is None else axis.place(value)
            marks.append((x, float(-place), f"trial {number}: {_shown(value)}"))
        marks.append((None, None, ""))
    x_places, y_places, texts = zip(*marks, strict=True)
    return Series(name, colour, x_places, y_places, kind="line", texts=texts, width=width, faint=width <= 1)


def _shown(value: Any) -> str:
    return "not set" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _spread(notes: Sequence[tuple[float, str]]) -> list[tuple[float, float, str]]:
    """Texts along an axis: under it; where they are long, every second one above it; where too long, only the ends."""
    between = _CHARACTERS // max(1, len(notes) - 1) - 2
    if all(len(text) <= min(_MOST_ROOM, between) for _, text in notes):
        return [(x, -_AWAY, text) for x, text in notes]
    room = min(_MOST_ROOM, 2 * between + 2)
    if len(notes) > 3 and (room < _LEAST_ROOM or any(len(broken(text, room)) > 2 for _, text in notes)):
        return _spread([notes[0], (0.5, f"{len(notes)} choices"), notes[-1]])
    lines = ["\n".join(broken(text, room)) for _, text in notes]
    return [(x, _AWAY if index % 2 else -_AWAY, lines[index]) for index, (x, _) in enumerate(notes)]


def slices(record: StudyRecord, shares: Mapping[str, float]) -> Picture:
    """A panel for each parameter: its values in the complete trials, and their scores.

    Args:
        record: The study.
        shares: What `importances` gives.
    """
    name, title = "slices", "Slices"
    kinds = _tried(record)
    if not record.complete or not kinds:
        return Picture(name, title, _NO_PARAMETER if record.complete else _NO_SCORE)
    panels = [_slice(record, flag, kinds[flag]) for flag in sorted(kinds, key=lambda flag: -shares.get(flag, 0.0))]
    says = f"{record.monitor} of the complete trials by the value of each parameter, the most important first."
    return Picture(name, title, says, panels)


def _slice(record: StudyRecord, flag: str, kind: BaseDistribution) -> Panel:
    trials = [trial for trial in record.complete if flag in trial.params]
    best = [trial for trial in trials if trial is record.best]
    scores = [[score(trial) for trial in chosen] for chosen in (trials, best)]
    texts = [[f"trial {trial.number}: {_shown(trial.params[flag])}" for trial in chosen] for chosen in (trials, best)]
    names = (("complete", COMPLETE, "circle"), ("best", BEST, "star"))
    ends = with_room([score(trial) for trial in record.complete])  # the same for all, so that they can be compared
    if isinstance(kind, CategoricalDistribution):
        choices = _choices(kind, record.values(flag))
        places = [[float(-choices.index(str(t.params[flag]))) for t in chosen] for chosen in (trials, best)]
        drawn = zip(names, scores, places, texts, strict=True)
        ticks = {float(-place): choice for place, choice in enumerate(choices)}
        return Panel(record.monitor, flag, _dots(drawn), y_ticks=ticks, x_range=ends, widest_tick=_SMALL)
    values = [[float(trial.params[flag]) for trial in chosen] for chosen in (trials, best)]
    log = _is_log(kind)
    whole = isinstance(kind, IntDistribution) and not log
    series = _dots(zip(names, values, scores, texts, strict=True))
    return Panel(flag, record.monitor, series, x_log=log, x_whole=whole, y_range=ends)


def _dots(drawn: Any) -> list[Series]:
    return [
        Series(name, colour, x, y, texts=texts, symbol=symbol, width=12.0 if symbol == "star" else 5.0)
        for (name, colour, symbol), x, y, texts in drawn
        if x
    ]
