"""Figures of a report: title and caption of each, whether the study has the data for it, and how trials are drawn."""

import copy
import re
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.outcomes import BEST, COLORS, NAMES, count_outcomes
from lightning_hpo.report.study_record import StudyRecord

__all__ = ["MAX_AXES", "MAX_LINES", "MAX_TRIALS", "Figure", "curves", "figures", "line_style", "started", "wrap"]

MAX_TRIALS = 1000
"""Maximum number of trials in a figure with a mark for each trial."""

MAX_LINES = 300
"""Maximum number of trials in a figure with a line for each trial; more lines hide each other."""

MAX_AXES = 8
"""Maximum number of parameters in the parallel coordinates; more axes have no room for their labels."""

_ENOUGH_TRIALS = 50  # PED-ANOVA compares the best tenth, which needs five trials.


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


def line_style(record: StudyRecord, trial: FrozenTrial) -> tuple[str, str, float, float, int]:
    """Return name, color, width, opacity and order of a learning curve; a higher order is drawn over a lower one."""
    if record.best is not None and trial.number == record.best.number:
        return f"best: trial {trial.number}", BEST, 2.5, 1.0, 4
    # Most lines are of complete trials, and would hide the others.
    order = 2 if trial.state == TrialState.COMPLETE else 3
    return NAMES[trial.state], COLORS[trial.state], 1.0, 0.6, order


def curves(record: StudyRecord) -> list[FrozenTrial]:
    """Return the trials whose learning curves are drawn; their epochs count from 1."""
    shifted = []
    for trial in record.of(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
        if trial.intermediate_values:
            shifted.append(copy.copy(trial))
            shifted[-1].intermediate_values = {step + 1: value for step, value in trial.intermediate_values.items()}
    return shifted


def started(record: StudyRecord) -> list[FrozenTrial]:
    """Return the trials of the timeline: those that have a start time."""
    return [trial for trial in record.trials if trial.datetime_start is not None]


def figures(record: StudyRecord) -> dict[str, Figure]:
    """Describe all figures of a report, by name."""
    no_score = "" if record.complete else "No trial is complete, so there are no scores."
    no_parameter = no_score or ("" if record.parameters else "The trials have no parameters.")
    count, lines = len(record.complete), len(curves(record))
    bars = len(started(record))
    learning = f"{record.monitor} by epoch, one line for each complete, pruned or running trial."
    slices = (
        f"{record.monitor} of the complete trials by the value of each parameter, the most important first. "
        "Darker points are later trials."
    )
    timeline = (
        "One bar for each trial, from its start to its end. For a resumed trial, this includes the pause. "
        "A paused trial is drawn at its start."
    )
    outcomes = ", ".join(f"{each.count} {each.label}" for each in count_outcomes(record.trials))
    no_curve = "" if lines else "No trial has reported an intermediate value."
    described = [
        _figure("history", "Optimization history", no_score, _history(record)),
        _figure("curves", "Learning curves", no_curve, learning + _thinned(lines, MAX_LINES)),
        _figure("importance", "Parameter importances", _no_importance(record), _importance(count)),
        _figure("slices", "Slices", no_parameter, slices + _thinned(count, MAX_TRIALS)),
        _figure("parallel", "Parallel coordinates", no_parameter, _parallel(record)),
        _figure("timeline", "Timeline", "" if bars else "No trial has started.", timeline + _thinned(bars, MAX_TRIALS)),
        _figure("outcomes", "Outcomes", "" if record.trials else "The study has no trials.", f"{outcomes}."),
    ]
    return {figure.name: figure for figure in described}


def _figure(name: str, title: str, missing: str, caption: str) -> Figure:
    """Describe a figure, which is not drawn if data is missing."""
    return Figure(name, title, missing or caption, drawn=not missing)


def _history(record: StudyRecord) -> str:
    baselines = " Dashed lines: scores of the baselines." if record.baselines else ""
    collapsed = " Gray: collapsed trials, which predict the same for every example." if record.collapsed else ""
    return f"Score of every complete trial, and the best so far.{baselines}{collapsed}"


def _no_importance(record: StudyRecord) -> str:
    count, parameters = len(record.complete), record.parameters
    if count < 2:
        return f"Importances need two complete trials; the study has {count}."
    if len(parameters) < 2:
        return f"{parameters[0]} is the only parameter." if parameters else "The trials have no parameters."
    return "" if record.importances else f"The {count} complete trials do not distinguish the parameters."


def _importance(count: int) -> str:
    return (
        f"Share of each parameter in what distinguishes the best tenth of the {count} complete trials (PED-ANOVA). "
        "For a parameter that only some trials have, having it counts as well."
    ) + (f" With fewer than {_ENOUGH_TRIALS} complete trials, this is only a hint." if count < _ENOUGH_TRIALS else "")


def _parallel(record: StudyRecord) -> str:
    caption = f"One line for each complete trial, from its {record.monitor} through its parameters; darker is better."
    if any(name not in trial.params for trial in record.complete for name in record.parameters[:MAX_AXES]):
        caption += " None: the trial does not have the parameter."
    if len(record.parameters) > MAX_AXES:
        caption += f" Only the {MAX_AXES} most important parameters are drawn."
    return caption + _thinned(len(record.complete), MAX_LINES)


def _thinned(count: int, limit: int) -> str:
    return f" {limit} of the {count} trials are drawn, evenly chosen." if count > limit else ""


def wrap(text: str, width: int) -> list[str]:
    """Break a label into lines of about `width` characters, after a space or one of `. _ / -`."""
    lines = [""]
    for piece in re.findall(rf"[^\s._/-]{{1,{width}}}[\s._/-]*|[\s._/-]+", text):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines
