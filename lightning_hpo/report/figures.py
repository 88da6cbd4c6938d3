"""Figures of a report: their titles and captions, and whether the study has the data for each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.outcomes import count_outcomes
from lightning_hpo.report.study_record import StudyRecord

__all__ = ["MAX_AXES", "MAX_LINES", "MAX_TRIALS", "Figure", "figures", "started", "with_curve", "wrap"]

MAX_TRIALS = 1000
"""Maximum number of trials in a figure with a mark for each trial."""

MAX_LINES = 300
"""Maximum number of trials in a figure with a line for each trial; more lines hide each other."""

MAX_AXES = 8
"""Maximum number of parameters in the parallel coordinates; more axes have no room for their labels."""

_ENOUGH_TRIALS = 50  # PED-ANOVA compares the best tenth, which needs five trials.
_NO_SCORE = "No trial is complete, so there are no scores."
_NO_PARAMETER = "The trials have no parameters."


@dataclass(frozen=True)
class Figure:
    """Description of a figure.

    Args:
        name: Name of its PNG file, and its anchor on the page.
        title: Its heading.
        caption: What it shows; if it is not drawn, why.
        drawn: Whether the study has the data for it.
    """

    name: str
    title: str
    caption: str
    drawn: bool = True


def figures(record: StudyRecord) -> dict[str, Figure]:
    """Describe all figures of a report, by name."""
    described = [
        _history(record),
        _curves(record),
        _importance(record),
        _slices(record),
        _parallel(record),
        _timeline(record),
        _outcomes(record),
    ]
    return {figure.name: figure for figure in described}


def _history(record: StudyRecord) -> Figure:
    name, title = "history", "Optimization history"
    if not record.complete:
        return Figure(name, title, _NO_SCORE, drawn=False)
    caption = "Score of every complete trial, and the best score so far."
    if record.comparable_baselines:
        caption += " Dashed lines: scores of the constant baselines."
    if any(trial.user_attrs.get("collapsed") for trial in record.complete):
        caption += " Gray: collapsed trials, which predict the same for every example."
    return Figure(name, title, caption)


def with_curve(record: StudyRecord) -> list[FrozenTrial]:
    """Return the trials whose learning curves are drawn."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return [trial for trial in record.of(*states) if trial.intermediate_values]


def _curves(record: StudyRecord) -> Figure:
    name, title = "curves", "Learning curves"
    trials = with_curve(record)
    if not trials:
        return Figure(name, title, "No trial has reported an intermediate value.", drawn=False)
    caption = f"{record.monitor} by epoch, one line for each complete, pruned or running trial."
    return Figure(name, title, caption + _thinned(len(trials), MAX_LINES))


def _importance(record: StudyRecord) -> Figure:
    name, title = "importance", "Parameter importances"
    count = len(record.complete)
    if count < 2:
        return Figure(name, title, f"Importances need two complete trials; the study has {count}.", drawn=False)
    if len(record.parameters) < 2:
        caption = f"{record.parameters[0]} is the only parameter." if record.parameters else _NO_PARAMETER
        return Figure(name, title, caption, drawn=False)
    if not record.importances:
        return Figure(name, title, f"The {count} complete trials do not distinguish the parameters.", drawn=False)
    caption = (
        f"Share of each parameter in what distinguishes the best tenth of the {count} complete trials (PED-ANOVA). "
        "For a parameter that only some trials have, having it counts as well."
    )
    if count < _ENOUGH_TRIALS:
        caption += f" With fewer than {_ENOUGH_TRIALS} complete trials, this is only a hint."
    return Figure(name, title, caption)


def _slices(record: StudyRecord) -> Figure:
    name, title = "slices", "Slices"
    if not record.parameters:
        return Figure(name, title, _NO_PARAMETER if record.complete else _NO_SCORE, drawn=False)
    caption = (
        f"{record.monitor} of the complete trials by the value of each parameter, the most important first. "
        "Darker points are later trials; the star is the best trial."
    )
    return Figure(name, title, caption + _thinned(len(record.complete), MAX_TRIALS))


def _parallel(record: StudyRecord) -> Figure:
    name, title = "parallel", "Parallel coordinates"
    if not record.parameters:
        return Figure(name, title, _NO_PARAMETER if record.complete else _NO_SCORE, drawn=False)
    caption = f"One line for each complete trial, from its {record.monitor} through its parameters; darker is better."
    if any(name not in trial.params for trial in record.complete for name in record.parameters[:MAX_AXES]):
        caption += " None: the trial does not have the parameter."
    if len(record.parameters) > MAX_AXES:
        caption += f" Only the {MAX_AXES} most important parameters are drawn."
    return Figure(name, title, caption + _thinned(len(record.complete), MAX_LINES))


def started(record: StudyRecord) -> list[FrozenTrial]:
    """Return the trials that have a start time."""
    return [trial for trial in record.trials if trial.datetime_start is not None]


def _timeline(record: StudyRecord) -> Figure:
    name, title = "timeline", "Timeline"
    trials = started(record)
    if not trials:
        return Figure(name, title, "No trial has started.", drawn=False)
    caption = (
        "One bar for each trial, from its start to its end. For a resumed trial, this includes the pause. "
        "A paused trial is drawn at its start."
    )
    return Figure(name, title, caption + _thinned(len(trials), MAX_TRIALS))


def _outcomes(record: StudyRecord) -> Figure:
    name, title = "outcomes", "Outcomes"
    if not record.trials:
        return Figure(name, title, "The study has no trials.", drawn=False)
    return Figure(name, title, ", ".join(f"{each.count} {each.label}" for each in count_outcomes(record.trials)) + ".")


def _thinned(count: int, limit: int) -> str:
    return f" {limit} of the {count} trials are drawn, evenly chosen." if count > limit else ""


def wrap(text: str, width: int) -> Sequence[str]:
    """Break a label into lines of about `width` characters, after a space or one of `. _ / -`."""
    lines = [""]
    for piece in re.findall(rf"[^\s._/-]{{1,{width}}}[\s._/-]*|[\s._/-]+", text):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines
