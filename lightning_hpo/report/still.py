"""Pictures as PNG files, drawn by Matplotlib without a screen."""

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from lightning_hpo.report.picture import Panel, Picture, Series

__all__ = ["save"]

_COLUMNS = 3
_DPI = 110
_WIDEST_LABEL = 42
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
_FEW = 200
_MARKERS = {"circle": "o", "x": "x", "star": "*"}


def save(picture: Picture, path: Path) -> None:
    """Write the picture, which has panels, as a PNG file."""
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
    figure.savefig(path)


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
    for name, level in panel.levels.items():
        axes.axhline(level, linestyle="--", color="#555555", linewidth=1, label=f"{name} {level:.4f}", zorder=1)
    for x, y, text in panel.notes:
        axes.text(x, y, _label(text), fontsize=8, ha="center", va="center", color="#333333", zorder=50, bbox=_PAPER)
    axes.set_xlabel(_label(panel.x_label))
    axes.set_ylabel(_label(panel.y_label))
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.x_range is not None:
        axes.set_xlim(panel.x_range)
    if panel.x_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    if panel.x_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.x_ticks is not None:
        axes.set_xticks(list(panel.x_ticks), [_label(text) for text in panel.x_ticks.values()])
    if panel.y_ticks is not None:
        axes.set_yticks(list(panel.y_ticks), [_label(text) for text in panel.y_ticks.values()])
        axes.set_ylim(min(panel.y_ticks) - 0.6, max(panel.y_ticks) + 0.6)


def _series(axes: Axes, series: Series, order: int) -> None:
    x, y = (np.array(places, dtype=float) for places in (series.x, series.y))
    drawn: dict[str, Any] = {"color": series.colour, "label": _label(series.name), "zorder": 2 + order}
    if series.kind == "bars":
        # An edge keeps neighbours apart; where they are many, it keeps thin ones from vanishing.
        edge = "white" if len(x) <= _FEW else series.colour
        axes.barh(y, x, left=list(series.base) or 0.0, height=0.7, edgecolor=edge, linewidth=0.5, **drawn)
    elif series.kind == "line":
        alpha = 0.55 if series.faint else 1.0
        axes.plot(x, y, linewidth=series.width, marker="o", markersize=2, alpha=alpha, **drawn)
    else:
        axes.scatter(x, y, s=series.width**2, marker=_MARKERS[series.symbol], alpha=0.75, **drawn)


def _label(text: str) -> str:
    """Long texts are broken, not cut; $ would begin a formula."""
    return "\n".join(textwrap.wrap(text, _WIDEST_LABEL)).replace("$", r"\$")
