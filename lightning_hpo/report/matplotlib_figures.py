"""PNG files of the report: Optuna's Matplotlib figures, with outcomes, baselines and labels added."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from optuna.visualization import matplotlib as visualization

from lightning_hpo.report.figures import MAX_AXES, MAX_LINES, MAX_TRIALS, Figure, started, with_curve, wrap
from lightning_hpo.report.outcomes import BEST, COLLAPSED, COLORS, COMPLETE, NAMES, count_outcomes
from lightning_hpo.report.study_record import StudyRecord, quiet, score

__all__ = ["save"]

_DASHES = ("--", ":", "-.", (0, (8, 3)))
_COLUMNS = 4
_DPI = 110
_LABEL_WIDTH = 40
_TICK_WIDTH = 18
_ROOM_FOR_CHOICES = 24
_WIDTH_INCHES = 11.0

matplotlib.use("agg")  # Optuna draws with pyplot, which would open windows on a machine with a display.


def save(figure: Figure, record: StudyRecord, path: Path) -> None:
    """Draw a figure and write it as a PNG file.

    Args:
        figure: Its description.
        record: The study.
        path: The file.
    """
    with plt.style.context("default"), quiet():  # Optuna sets the style of the whole process.
        axes = _FIGURES[figure.name](record)
        sheet = plt.gcf()
        for place in ("left", "center"):
            axes.set_title("", loc=place)
        sheet.suptitle(figure.title)
        sheet.savefig(path, dpi=_DPI, bbox_inches=None if sheet.get_layout_engine() else "tight")
        plt.close(sheet)


def _history(record: StudyRecord) -> Axes:
    axes = visualization.plot_optimization_history(record.view(record.trials), target_name=record.monitor)
    points, *_ = axes.collections
    points.set(color=COMPLETE, sizes=[20], label="complete", alpha=0.75 if len(record.complete) <= 200 else 0.35)
    (best,) = axes.lines
    best.set(color=BEST, linewidth=2, alpha=1, label="best so far", drawstyle="steps-post")
    collapsed = [trial for trial in record.complete if trial.user_attrs.get("collapsed")]
    if collapsed:
        numbers, scores = [trial.number for trial in collapsed], [score(trial) for trial in collapsed]
        axes.scatter(numbers, scores, s=25, color=COLLAPSED, label="collapsed", zorder=3)
    for (name, value), dash in zip(record.comparable_baselines.items(), itertools.cycle(_DASHES)):
        label = _label(f"baseline: {name} ({value:.4f})")
        axes.axhline(value, linestyle=dash, color="#555555", linewidth=1.2, label=label)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(axes)
    return _resized(axes)


def _curves(record: StudyRecord) -> Axes:
    view = record.view(with_curve(record), MAX_LINES)
    axes = visualization.plot_intermediate_values(view)
    drawn = {}
    for line, trial in zip(axes.lines, view.get_trials(), strict=True):
        best = trial is record.best
        color = BEST if best else COLORS[trial.state]
        line.set(xdata=np.asarray(line.get_xdata()) + 1, color=color, markersize=3)
        line.set(linewidth=2.5 if best else 1, alpha=1.0 if best else 0.6)
        # Most lines are of complete trials, and would hide the others.
        line.set_zorder(4 if best else 2 if trial.state == TrialState.COMPLETE else 3)
        drawn[f"best: trial {trial.number}" if best else NAMES[trial.state]] = line
    axes.relim()
    axes.autoscale()
    axes.set(xlabel="epoch", ylabel=_label(record.monitor))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(axes, drawn)
    return _resized(axes)


def _importance(record: StudyRecord) -> Axes:
    axes = visualization.plot_param_importances(record.view(record.complete), target_name=record.monitor)
    for bar in axes.patches:
        bar.set_color(COMPLETE)
    for text in axes.texts:
        text.set_text(f" {text.get_text()}")  # Optuna writes the share onto the end of its bar.
    axes.set(xlabel="share of the importance", ylabel="")
    axes.set_yticks(axes.get_yticks(), [_label(text.get_text()) for text in axes.get_yticklabels()])
    _remove_legend(axes)
    return _resized(axes, rows=len(record.importances))


def _slices(record: StudyRecord) -> Axes:
    view = record.view(record.complete, MAX_TRIALS)
    visualization.plot_slice(view, record.parameters, target_name=_label(record.monitor))
    sheet = plt.gcf()
    *panels, color_bar = sheet.axes
    color_bar.remove()
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    grid = GridSpec(rows, columns, figure=sheet)
    # Optuna sorts by name and draws one row, which is 60 inches wide with 20 parameters.
    for panel, name in zip(panels, sorted(record.parameters), strict=True):
        row, column = divmod(record.parameters.index(name), columns)
        panel.set_subplotspec(grid[row, column])
        panel.set_ylabel(_label(record.monitor) if column == 0 else "")
        panel.set_xlabel(_label(name, 30), fontsize=10)
        panel.tick_params(labelleft=column == 0, labelsize=8)
        _set_background(panel)
        _mark_slice(panel, record, name)
    sheet.set_layout_engine("constrained")
    sheet.set_size_inches(max(_WIDTH_INCHES / 2, 3.2 * columns), 3.6 * rows)
    return panels[0]


def _mark_slice(panel: Axes, record: StudyRecord, name: str) -> None:
    """Name the choices of a parameter, and mark the best trial."""
    choices: list[str] = []
    kind = record.distributions[name]
    if isinstance(kind, CategoricalDistribution):
        tried = {repr(trial.params[name]) for trial in record.complete if name in trial.params}
        choices = [repr(choice) for choice in kind.choices if repr(choice) in tried]
        labels = [_label(str(choice), 24) for choice in kind.choices if repr(choice) in tried]
        rotation = 90 if sum(map(len, labels)) > _ROOM_FOR_CHOICES else 0
        panel.set_xticks(range(len(choices)), labels, rotation=rotation, fontsize=7)
        panel.set_xlim(-0.5, len(choices) - 0.5)
    elif isinstance(kind, IntDistribution) and not kind.log:
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if record.best is not None and name in record.best.params:
        value = record.best.params[name]
        x = choices.index(repr(value)) if choices else value
        panel.scatter([x], [score(record.best)], s=140, marker="*", color=BEST, zorder=3)


def _parallel(record: StudyRecord) -> Axes:
    view = record.view(record.complete, MAX_LINES)
    names = sorted(record.parameters[:MAX_AXES])
    axes = visualization.plot_parallel_coordinate(view, names, target_name=_label(record.monitor))
    # Optuna cuts labels after 17 characters, which leaves names of one group alike.
    labels = [_label(name, _TICK_WIDTH) for name in (record.monitor, *names)]
    axes.set_xticks(range(len(labels)), labels, rotation=0, fontsize=8)
    axes.tick_params(axis="x", pad=24)  # below the last choice of an axis, which may have several lines
    axes.collections[0].set(alpha=0.5, linewidth=1)
    sheet = plt.gcf()
    for axis, name in zip(sheet.axes[2:], names, strict=True):  # after the axes of the score and of the color bar
        axis.tick_params(labelsize=8)
        if isinstance(record.distributions[name], CategoricalDistribution):
            choices = [_label(text.get_text(), _TICK_WIDTH) for text in axis.get_yticklabels()]
            axis.set_yticks(axis.get_yticks(), choices)
        for label in axis.get_yticklabels():
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5})
    sheet.set_size_inches(max(_WIDTH_INCHES, 1.7 * len(labels)), 6.5)
    return axes


def _timeline(record: StudyRecord) -> Axes:
    view = record.view(started(record), MAX_TRIALS)
    axes = visualization.plot_timeline(view)
    drawn = {}
    for bar, trial in zip(axes.patches, view.get_trials(), strict=True):
        bar.set_color(COLORS[trial.state])
        drawn[NAMES[trial.state]] = bar
    axes.set(xlabel="", ylabel="trial")
    axes.invert_yaxis()
    for label in axes.get_xticklabels():
        label.set(rotation=0, horizontalalignment="center")
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))  # type: ignore[no-untyped-call]
    _add_legend(axes, drawn)
    return _resized(axes)


def _outcomes(record: StudyRecord) -> Axes:
    counts = count_outcomes(record.trials)[::-1]
    labels = [_label(f"{each.label} ({each.count})") for each in counts]
    _, axes = plt.subplots()
    axes.barh(labels, [each.count for each in counts], color=[COLORS[each.state] for each in counts])
    axes.set_xlabel("trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _resized(axes, rows=len(counts))


def _add_legend(axes: Axes, marks: Mapping[str, Artist] | None = None) -> None:
    """Put the legend of the axes, or of these marks by name, below the figure."""
    handles, names = axes.get_legend_handles_labels() if marks is None else (list(marks.values()), list(marks))
    _remove_legend(axes)
    plt.gcf().legend(handles, names, loc="outside lower center", ncols=3, frameon=False)


def _remove_legend(axes: Axes) -> None:
    if (legend := axes.get_legend()) is not None:
        legend.remove()


def _resized(axes: Axes, rows: int = 0) -> Axes:
    """Set the size of the sheet, with room for this number of rows."""
    _set_background(axes)
    plt.gcf().set_layout_engine("constrained")
    plt.gcf().set_size_inches(_WIDTH_INCHES, max(3.0 if rows else 5.0, 1.4 + 0.32 * rows))
    return axes


def _set_background(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)


def _label(text: str, width: int = _LABEL_WIDTH) -> str:
    """Wrap a text, and escape the dollar sign, which begins a formula."""
    return "\n".join(wrap(text, width)).replace("$", r"\$")


_FIGURES: Mapping[str, Callable[[StudyRecord], Axes]] = {
    "history": _history,
    "curves": _curves,
    "importance": _importance,
    "slices": _slices,
    "parallel": _parallel,
    "timeline": _timeline,
    "outcomes": _outcomes,
}
