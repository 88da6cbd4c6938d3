"""Pictures for the page, drawn by Plotly: what a mark stands for is said when it is pointed at."""

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from lightning_hpo.report.picture import FEW, WIDEST, Number, Panel, Series, broken

__all__ = ["draw", "scripts"]

_ROW_PX = 34
_LEAST_PX = 380
_TEXT = "#1a1a1a"
_PAPER = "rgba(255, 255, 255, 0.75)"
_GRID = "#e3e3e3"
_DASHES = ("dash", "dot", "dashdot", "longdash")
_NO_ROOM_BETWEEN = 2.5  # decades; beside more of them, what is between two powers of ten has no room
_ROOM_BETWEEN = 0.7  # decades; less may hold no 1, 2 or 5


def scripts() -> str:
    """The JavaScript that the drawings need, to be put into the page."""
    text: str = plotly.offline.get_plotlyjs()
    return text


def draw(panel: Panel, identity: str, *, legend: bool) -> str:
    """One panel as HTML; the page needs `scripts` before it.

    Args:
        panel: What is shown.
        identity: Id of the element.
        legend: Whether it says what its colours mean.
    """
    figure = go.Figure([_trace(series) for series in panel.series])
    figure.update_layout(
        template="none",
        font={"color": _TEXT, "family": "system-ui, sans-serif", "size": 13},
        height=max(_LEAST_PX, 130 + _row_px(panel) * len(panel.y_ticks or ())),
        margin={"l": 60, "r": 30, "t": 20, "b": 50},
        barmode="overlay",
        bargap=0.25,
        hovermode="closest",
        showlegend=legend,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0},
        xaxis=_axis(panel.x_label, panel.x_ticks, panel.x_range, panel.widest_tick) | _numbers(panel),
        yaxis=_axis(panel.y_label, panel.y_ticks, panel.y_ends, panel.widest_tick),
    )
    for (name, level), dash in zip(panel.levels.items(), itertools.cycle(_DASHES)):
        line = {"dash": dash, "color": "#555555", "width": 1.5}
        figure.add_hline(level, line=line, name=_label(f"{name} {level:.4f}"), showlegend=True)
    for x, y, text in panel.notes:
        figure.add_annotation(
            x=x, y=y, text=_label(text), showarrow=False, font={"size": 11, "color": "#333333"}, bgcolor=_PAPER
        )
    # Its bar of buttons would lie on what is drawn; a drag zooms and a double click goes back without it.
    config = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}
    drawn: str = plotly.io.to_html(figure, config=config, include_plotlyjs=False, full_html=False, div_id=identity)
    return drawn


def _row_px(panel: Panel) -> int:
    return 2 * _ROW_PX if panel.notes else _ROW_PX


def _trace(series: Series) -> Any:
    shown = {
        "name": _label(series.name),
        "showlegend": bool(series.name),
        "text": [html.escape(text) for text in series.texts],
        "hovertemplate": "%{text}<extra></extra>" if series.texts else "%{y:.4f}<extra></extra>",
    }
    x, y = _finite(series.x), _finite(series.y)
    opacity = 0.55 if series.faint else 1.0
    if series.kind == "bars":
        # An edge keeps neighbours apart; where they are many, it keeps thin ones from vanishing.
        edge = "white" if len(x) <= FEW else series.colour
        style = {"color": series.colour, "line": {"width": 0.5, "color": edge}}
        bars = {"orientation": "h", "base": list(series.base) or None, "marker": style, "textposition": "none"}
        return go.Bar(x=x, y=y, **bars, **shown)
    if series.kind == "line":
        line = {"color": series.colour, "width": series.width}
        # A line of one place alone would not be seen.
        marker = {"size": 4, "color": series.colour}
        return go.Scatter(x=x, y=y, mode="lines+markers", line=line, marker=marker, opacity=opacity, **shown)
    opacity = 0.75 if len(x) <= FEW else 0.35
    marker = {"color": series.colour, "size": 1.4 * series.width, "symbol": series.symbol, "opacity": opacity}
    return go.Scatter(x=x, y=y, mode="markers", marker=marker, **shown)


def _finite(places: Sequence[Number]) -> list[Number]:
    """Seven digits are more than a display shows."""
    return [None if place is None or not math.isfinite(place) else float(f"{place:.7g}") for place in places]


def _axis(
    label: str, ticks: Mapping[float, str] | None, ends: tuple[float, float] | None, widest: int
) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": {"text": _label(label), "standoff": 12},
        "automargin": True,
        "gridcolor": _GRID,
        "linecolor": "#888888",
        "zeroline": False,
        "exponentformat": "e",
        "range": ends,
    }
    if ticks is not None:
        axis |= {"tickvals": list(ticks), "ticktext": [_label(text, widest) for text in ticks.values()]}
    return axis


def _numbers(panel: Panel) -> dict[str, Any]:
    """Where numbers stand along the horizontal axis, if Plotly would not choose well by itself."""
    across = [x for series in panel.series for x in series.x if x is not None]
    if panel.x_log:
        decades = math.log10(max(across) / min(across))
        between: dict[str, Any] = {"dtick": "D2"} if decades > _ROOM_BETWEEN else {"nticks": 4}
        return {"type": "log"} | ({"dtick": 1} if decades > _NO_ROOM_BETWEEN else between)
    if panel.x_whole and across and max(across) - min(across) < 10:
        return {"dtick": 1}
    return {}


def _label(text: str, widest: int = WIDEST) -> str:
    """A text as Plotly takes it: its few HTML tags are not wanted here."""
    return "<br>".join(html.escape(line) for line in broken(text, widest))
