"""PNG files of the report: Optuna's Matplotlib figures, with outcomes and baselines added."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import LogFormatter
from optuna.distributions import CategoricalDistribution
from optuna.visualization import matplotlib as visualization

from lightning_hpo.report.figures import MAX_AXES, MAX_LINES, MAX_TRIALS, Figure, curves, line_style, started, wrap
from lightning_hpo.report.outcomes import COLLAPSED, COLORS, NAMES, count_outcomes
from lightning_hpo.report.study_record import StudyRecord, quiet, score
from lightning_hpo.storage.objective import score_text

__all__ = ["save"]

_COLUMNS = 4
_DPI = 110
_LABEL_WIDTH = 20

matplotlib.use("agg")  # Optuna draws with pyplot, which would open windows on a machine with a display.


def save(figure: Figure, record: StudyRecord, path: Path) -> None:
    """Draw a figure, which the study has the data for, and write it as a PNG file."""
    # Optuna sets the style of the whole process. A dollar sign in a name does not begin a formula.
    with plt.style.context(["default", {"text.parse_math": False}]), quiet():
        _FIGURES[figure.name](record)
        sheet = plt.gcf()
        for axis in [axis for axes in sheet.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"]:
            axis.set_major_formatter(LogFormatter())  # Matplotlib's default is a formula.
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
        sheet.savefig(path, dpi=_DPI, bbox_inches="tight")
        plt.close(sheet)


def _history(record: StudyRecord) -> None:
    axes = visualization.plot_optimization_history(record.view(record.trials), target_name=record.monitor)
    if record.collapsed:
        numbers, scores = [trial.number for trial in record.collapsed], [score(trial) for trial in record.collapsed]
        axes.scatter(numbers, scores, color=COLLAPSED, label="collapsed", zorder=3)
    for index, (name, value) in enumerate(record.baselines.items()):
        label = _label(f"baseline: {name} ({score_text(value)})")
        axes.axhline(value, linestyle="--", color=f"C{index + 3}", label=label)
    handles, names = axes.get_legend_handles_labels()
    _add_legend(axes, dict(zip(names, handles, strict=True)))


def _curves(record: StudyRecord) -> None:
    view, drawn = record.view(curves(record), MAX_LINES), {}
    axes = visualization.plot_intermediate_values(view)
    for line, trial in zip(axes.lines, view.trials, strict=True):
        name, color, width, opacity, order = line_style(record, trial)
        line.set(color=color, linewidth=width, alpha=opacity, zorder=order)
        drawn[name] = line
    axes.set(xlabel="epoch", ylabel=record.monitor)
    _add_legend(axes, drawn)


def _importance(record: StudyRecord) -> None:
    visualization.plot_param_importances(record.view(record.complete), target_name=record.monitor)
    _resize(rows=len(record.importances))


def _slices(record: StudyRecord) -> None:
    visualization.plot_slice(record.view(record.complete, MAX_TRIALS), record.parameters, target_name=record.monitor)
    sheet = plt.gcf()
    *panels, color_bar = sheet.axes
    color_bar.remove()
    # Optuna sorts by name and draws one row, which is 60 inches wide with 20 parameters.
    columns = min(_COLUMNS, len(panels))
    grid = GridSpec(math.ceil(len(panels) / columns), columns, figure=sheet)
    for panel, name in zip(panels, sorted(record.parameters), strict=True):
        row, column = divmod(record.parameters.index(name), columns)
        panel.set_subplotspec(grid[row, column])
        panel.set_xlabel(_label(name))
        panel.set_ylabel(record.monitor if column == 0 else "")
        panel.tick_params(labelleft=column == 0, labelsize=8)
        if isinstance(record.distributions[name], CategoricalDistribution):
            labels = [_label(text.get_text()) for text in panel.get_xticklabels()]
            panel.set_xticks(panel.get_xticks(), labels, rotation=90)
    sheet.set_layout_engine("constrained")
    sheet.set_size_inches(3.2 * columns, 3.6 * grid.nrows)


def _parallel(record: StudyRecord) -> None:
    view, names = record.view(record.complete, MAX_LINES), sorted(record.parameters[:MAX_AXES])
    axes = visualization.plot_parallel_coordinate(view, names, target_name=record.monitor)
    # Optuna cuts labels after 17 characters, which leaves names of one group alike.
    axes.set_xticks(range(len(names) + 1), [record.monitor, *names], rotation=330, ha="left")
    axes.tick_params(axis="x", pad=24)  # below the last choice of an axis, which may have several lines
    for axis, name in zip(plt.gcf().axes[2:], names, strict=True):  # after the axes of the score and of the color bar
        if isinstance(record.distributions[name], CategoricalDistribution):
            axis.set_yticks(axis.get_yticks(), [_label(text.get_text()) for text in axis.get_yticklabels()])
        axis.tick_params(labelsize=8)
        plt.setp(axis.get_yticklabels(), bbox={"facecolor": "white", "linewidth": 0, "alpha": 0.7, "pad": 0.5})
    plt.gcf().set_size_inches(2.0 * (len(names) + 2), 6.5)


def _timeline(record: StudyRecord) -> None:
    view = record.view(started(record), MAX_TRIALS)
    axes = visualization.plot_timeline(view)
    drawn = {}
    for bar, trial in zip(axes.patches, view.trials, strict=True):
        bar.set_color(COLORS[trial.state])
        drawn[NAMES[trial.state]] = bar
    _add_legend(axes, drawn)


def _outcomes(record: StudyRecord) -> None:
    counts = count_outcomes(record.trials)[::-1]
    labels = [f"{each.label} ({each.count})" for each in counts]
    plt.barh(labels, [each.count for each in counts], color=[COLORS[each.state] for each in counts])
    plt.title("Outcomes")
    plt.xlabel("trials")
    _resize(rows=len(counts))


def _add_legend(axes: Axes, marks: Mapping[str, Artist]) -> None:
    """Name these marks to the right of the figure."""
    axes.legend(list(marks.values()), list(marks), loc="upper left", bbox_to_anchor=(1.02, 1.0))
    _resize()


def _resize(rows: int = 10) -> None:
    plt.gcf().set_size_inches(10.0, max(3.0, 1.4 + 0.32 * rows))


def _label(text: str) -> str:
    return "\n".join(wrap(text, _LABEL_WIDTH))


_FIGURES: Mapping[str, Callable[[StudyRecord], None]] = {
    "history": _history,
    "curves": _curves,
    "importance": _importance,
    "slices": _slices,
    "parallel": _parallel,
    "timeline": _timeline,
    "outcomes": _outcomes,
}
