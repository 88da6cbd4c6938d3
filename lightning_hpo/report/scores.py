"""Pictures of the scores: the history of the best, and what every trial learned epoch by epoch."""

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.colours import BEST, COMPLETE, ENDINGS, QUIET
from lightning_hpo.report.picture import Number, Panel, Picture, Series, with_room
from lightning_hpo.report.study_record import StudyRecord, evenly, score

__all__ = ["curves", "history"]

_MOST_LINES = 150


def history(record: StudyRecord) -> Picture:
    """The score of every complete trial, the best so far, and the constant answers."""
    name, title = "history", "History"
    if not record.complete:
        return Picture(name, title, "No trial is complete, so there is no score to show.")
    collapsed = [trial for trial in record.complete if trial.user_attrs.get("collapsed")]
    others = [trial for trial in record.complete if not trial.user_attrs.get("collapsed")]
    series = [_points("complete", COMPLETE, others), _best_so_far(record)]
    if collapsed:
        series.insert(1, _points("complete, but every answer is the same", QUIET, collapsed))
    ends = (-1, len(record.trials))
    heights = with_room([*map(score, record.complete), *record.baselines.values()])
    panel = Panel("trial", record.monitor, series, levels=record.baselines, x_whole=True, x_range=ends, y_range=heights)
    says = "Every complete trial's score, and the best so far"
    says += "; the dashed lines are the scores of constant answers." if record.baselines else "."
    return Picture(name, title, says, [panel])


def _points(name: str, colour: str, trials: list[FrozenTrial]) -> Series:
    texts = [f"trial {trial.number}: {score(trial):.4f}" for trial in trials]
    return Series(name, colour, [trial.number for trial in trials], [score(trial) for trial in trials], texts=texts)


def _best_so_far(record: StudyRecord) -> Series:
    x: list[Number] = []
    y: list[Number] = []
    best = record.complete[0]
    for trial in record.complete:
        before, best = best, trial if record.better(score(trial), score(best)) else best
        if before is not best or not x:
            x += [trial.number, trial.number]
            y += [score(before), score(best)]
    last = record.trials[-1].number
    return Series("best so far", BEST, [*x, last], [*y, score(best)], kind="line", width=2.0)


def curves(record: StudyRecord) -> Picture:
    """The monitored value of every trial by epoch; where a trial was pruned, its line ends with a cross."""
    name, title = "curves", "Learning curves"
    told = [trial for trial in record.trials if trial.intermediate_values]
    if not told:
        return Picture(name, title, "No trial has told the value of an epoch, so there is no curve to show.")
    by_ending = [(label, [trial for trial in told if trial.state == state]) for state, label in ENDINGS.items()]
    series = [_lines(*label, evenly(trials, _MOST_LINES)) for label, trials in by_ending if trials]
    pruned = [trial for trial in told if trial.state == TrialState.PRUNED]
    if pruned:
        series.append(_ends(evenly(pruned, _MOST_LINES)))
    if record.best in told and record.best is not None:
        series.append(_lines(f"best: trial {record.best.number}", BEST, [record.best], width=2.5))
    says = f"{record.monitor} by epoch, a line a trial."
    says += f" A cross is where one of the {len(pruned)} pruned trials was stopped." if pruned else " None was pruned."
    if any(len(trials) > _MOST_LINES for _, trials in by_ending):
        says += f" Of each ending {_MOST_LINES} lines are drawn, evenly chosen: more would hide each other."
    last = max(epoch for trial in told for epoch, _ in _epochs(trial))
    panel = Panel("epoch", record.monitor, series, x_whole=True, x_range=(0.5, last + 0.5))
    return Picture(name, title, says, [panel])


def _epochs(trial: FrozenTrial) -> list[tuple[int, float]]:
    """Epochs as people count them, from 1, and their values."""
    return [(epoch + 1, value) for epoch, value in sorted(trial.intermediate_values.items())]


def _lines(name: str, colour: str, trials: Iterable[FrozenTrial], width: float = 1.0) -> Series:
    marks: list[tuple[Number, Number, str]] = []
    for trial in trials:
        marks += [(epoch, value, f"trial {trial.number}") for epoch, value in _epochs(trial)]
        marks.append((None, None, ""))  # the next one's line begins anew
    x, y, texts = zip(*marks, strict=True)
    return Series(name, colour, x, y, kind="line", texts=texts, width=width, faint=width <= 1)


def _ends(trials: list[FrozenTrial]) -> Series:
    last = [_epochs(trial)[-1] for trial in trials]
    name, (_, colour) = "stopped by the pruner", ENDINGS[TrialState.PRUNED]
    texts = [f"trial {trial.number}" for trial in trials]
    return Series(name, colour, [x for x, _ in last], [y for _, y in last], texts=texts, symbol="x")
