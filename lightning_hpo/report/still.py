"""Pictures as PNG files, drawn by Matplotlib without a display."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from lightning_hpo.report.picture import FEW, WIDEST, Panel, Picture, Series, broken

__all__ = ["draw", "save"]

_COLUMNS = 3
_DPI = 110
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
_DASHES = ("--", ":", "-.", (0, (8, 3)))
_MOST_NUMBERS = 6  # along an axis of one of several panels
_NO_ROOM_BETWEEN = 1.8  # decades; beside more of them, what is between two powers of ten has no room
_MARKERS = {"circle": "o", "x": "x", "star": "*"}


def save(picture: Picture, path: Path) -> None:
    """Write the picture, which has panels, as a PNG file."""
    draw(picture).savefig(path)


def draw(picture: Picture) -> Figure:
    """The picture, which has panels, on one sheet."""
    columns = min(_COLUMNS, len(picture.panels))
    rows = math.ceil(len(picture.panels) / columns)
    tallest = max(_height(panel) for panel in picture.panels)
    figure = Figure(figsize=(11 if columns == 1 else 5.6 * columns, tallest * rows), dpi=_DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, picture.panels, strict=False):
        _draw(axes, panel)
    for axes in grid[len(picture.panels) :]:
        axes.remove()
    _explain(figure, grid[0])
    figure.suptitle(_label(picture.title))
    return figure


def _height(panel: Panel) -> float:
    """Inches."""
    each = 0.65 if panel.notes else 0.32
    return max(3.6, 1.6 + each * len(panel.y_ticks or ()))


def _explain(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, which mean the same by the same colour."""
    marks, names = axes.get_legend_handles_labels()
    if names:
        figure.legend(marks, names, loc="outside lower center", ncols=min(3, len(names)), frameon=False)


def _draw(axes: Axes, panel: Panel) -> None:
    for order, series in enumerate(panel.series):
        _series(axes, series, order)
    for (name, level), dash in zip(panel.levels.items(), itertools.cycle(_DASHES)):
        label = _label(f"{name} {level:.4f}")
        axes.axhline(level, linestyle=dash, color="#555555", linewidth=1.2, label=label, zorder=1)
    for x, y, text in panel.notes:
        shown = _label(text)
        axes.text(x, y, shown, fontsize=8, ha="center", va="center", color="#333333", zorder=50, bbox=_PAPER)
    axes.set_xlabel(_label(panel.x_label))
    axes.set_ylabel(_label(panel.y_label))
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _numbers(axes, panel)
    if panel.x_range is not None:
        axes.set_xlim(panel.x_range)
    if panel.x_ticks is not None:
        axes.set_xticks(list(panel.x_ticks), [_label(text, panel.widest_tick) for text in panel.x_ticks.values()])
    if panel.y_ticks is not None:
        axes.set_yticks(list(panel.y_ticks), [_label(text, panel.widest_tick) for text in panel.y_ticks.values()])
    if panel.y_ends is not None:
        axes.set_ylim(panel.y_ends)


def _numbers(axes: Axes, panel: Panel) -> None:
    """Where numbers stand along the horizontal axis, so that they do not touch each other."""
    if not panel.x_log:
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_NUMBERS, steps=(1, 2, 5, 10), integer=panel.x_whole))
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    low, high = axes.get_xlim()
    if math.log10(high / low) > _NO_ROOM_BETWEEN:
        axes.xaxis.set_major_locator(LogLocator(numticks=_MOST_NUMBERS))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axes.xaxis.set_minor_formatter("{x:g}")


def _series(axes: Axes, series: Series, order: int) -> None:
    x, y = (np.array(places, dtype=float) for places in (series.x, series.y))
    drawn: dict[str, Any] = {"color": series.colour, "label": _label(series.name), "zorder": 2 + order}
    if series.kind == "bars":
        # An edge keeps neighbours apart; where they are many, it keeps thin ones from vanishing.
        edge = "white" if len(x) <= FEW else series.colour
        axes.barh(y, x, left=list(series.base) or 0.0, height=0.7, edgecolor=edge, linewidth=0.5, **drawn)
    elif series.kind == "line":
        alpha = 0.55 if series.faint else 1.0
        axes.plot(x, y, linewidth=series.width, marker="o", markersize=2, alpha=alpha, **drawn)
    else:
        alpha = 0.75 if len(x) <= FEW else 0.35
        axes.scatter(x, y, s=series.width**2, marker=_MARKERS[series.symbol], alpha=alpha, **drawn)


def _label(text: str, widest: int = WIDEST) -> str:
    """A text as Matplotlib takes it: $ would begin a formula."""
    return "\n".join(broken(text, widest)).replace("$", r"\$")
