"""Figures of the page: Optuna's Plotly figures, with outcomes and baselines added."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go
from optuna import visualization
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from lightning_hpo.report.figures import MAX_AXES, MAX_LINES, MAX_TRIALS, curves, line_style, started, wrap
from lightning_hpo.report.outcomes import COLLAPSED, COLORS, NAMES, count_outcomes
from lightning_hpo.report.study_record import StudyRecord, quiet, score, seconds_of
from lightning_hpo.storage.objective import score_text
from lightning_hpo.study.eta import duration

__all__ = ["draw", "to_html"]

_HEIGHT_PX, _TALL_PX, _ROW_PX = 400, 560, 30
_LABEL_WIDTH, _ROOM_FOR_CHOICES = 16, 32
_LEAST_DISTANCE = 0.045  # between two labels of a parallel coordinate, as a share of its length


def draw(name: str, record: StudyRecord) -> list[go.Figure]:
    """Draw the figure of this name, which the study has the data for; `slices` has one for each parameter."""
    with quiet():
        if name == "slices":
            return [_slice(record, parameter) for parameter in record.parameters]
        return [_FIGURES[name](record)]


def to_html(figure: go.Figure, identity: str) -> str:
    """Return a figure as an HTML element with this id; the page must contain plotly.js."""
    figure.update_layout(
        title=None,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0, "xanchor": "left"},
        height=figure.layout.height or _HEIGHT_PX,
    )
    figure.update_xaxes(exponentformat="e")
    # The button bar would cover the figure. Dragging zooms and a double click resets without it.
    config = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}
    return str(figure.to_html(config=config, include_plotlyjs=False, full_html=False, div_id=identity))


def _history(record: StudyRecord) -> go.Figure:
    figure = visualization.plot_optimization_history(record.view(record.trials), target_name=record.monitor)
    figure.data = figure.data[:2]  # without Optuna's empty trace for infeasible trials
    if record.collapsed:
        numbers, scores = zip(*((trial.number, score(trial)) for trial in record.collapsed), strict=True)
        figure.add_scatter(x=numbers, y=scores, mode="markers", name="collapsed", marker_color=COLLAPSED)
    for name, value in record.baselines.items():
        label = _label(f"baseline: {name} ({score_text(value)})", 40)
        figure.add_hline(value, line_dash="dash", name=label, showlegend=True)
    return figure


def _curves(record: StudyRecord) -> go.Figure:
    view, named = record.view(curves(record), MAX_LINES), set()
    figure = visualization.plot_intermediate_values(view)
    for trace, trial in zip(figure.data, view.trials, strict=True):
        name, color, width, opacity, order = line_style(record, trial)
        trace.update(name=name, showlegend=name not in named, line={"color": color, "width": width}, opacity=opacity)
        trace.update(hovertemplate=f"trial {trial.number}: %{{y:.4g}}<extra></extra>", zorder=order)
        named.add(name)
    return figure.update_layout(showlegend=True, xaxis_title="epoch", yaxis_title=record.monitor)


def _importance(record: StudyRecord) -> go.Figure:
    figure = visualization.plot_param_importances(record.view(record.complete), target_name=record.monitor)
    return figure.update_layout(height=_height(len(record.importances)), yaxis_title=None)


def _slice(record: StudyRecord, name: str) -> go.Figure:
    view = record.view(record.complete, MAX_TRIALS)
    figure = visualization.plot_slice(view, [name], target_name=record.monitor)
    kind = record.distributions[name]
    if isinstance(kind, CategoricalDistribution):
        labels = [_label(str(choice), 24) for choice in kind.choices]
        angle = 90 if sum(map(len, labels)) > _ROOM_FOR_CHOICES else 0
        figure.update_xaxes(tickvals=list(map(repr, kind.choices)), ticktext=labels, tickangle=angle, tickfont_size=10)
    return figure.update_traces(marker_showscale=False)


def _parallel(record: StudyRecord) -> go.Figure:
    view, names = record.view(record.complete, MAX_LINES), sorted(record.parameters[:MAX_AXES])
    figure = visualization.plot_parallel_coordinate(view, names, target_name=record.monitor)
    # Optuna cuts labels after 17 characters, which leaves names of one group alike.
    figure.update_xaxes(ticktext=[_label(name) for name in (record.monitor, *names)], tickangle=0)
    return figure.update_layout(height=_TALL_PX, annotations=_readable(figure.layout.annotations))


def _readable(annotations: Any) -> list[Any]:
    """Wrap the labels of the axes, and drop those that would cover another one."""
    kept: list[Any] = []
    for each in annotations:
        if all(each.x != other.x or abs(each.y - other.y) >= _LEAST_DISTANCE for other in kept):
            kept.append(each.update(text=_label(each.text), bgcolor="rgba(255, 255, 255, 0.7)"))
    return kept


def _timeline(record: StudyRecord) -> go.Figure:
    view = record.view(started(record), MAX_TRIALS)
    figure = visualization.plot_timeline(view)
    trials = {trial.number: trial for trial in view.trials}
    for trace in figure.data:
        state = TrialState[trace.name]
        # Optuna's texts hold all parameters and attributes, which is over 1 MB at 1,000 trials.
        texts = [f"trial {number}: {NAMES[state]}, {duration(seconds_of(trials[number]))}" for number in trace.y]
        trace.update(name=NAMES[state], marker_color=COLORS[state], text=texts, hovertemplate="%{text}<extra></extra>")
    return figure


def _outcomes(record: StudyRecord) -> go.Figure:
    counts = count_outcomes(record.trials)[::-1]
    labels = [f"{each.label} ({each.count})" for each in counts]
    colors = [COLORS[each.state] for each in counts]
    bars = go.Bar(x=[each.count for each in counts], y=labels, orientation="h", marker_color=colors)
    return go.Figure(bars, {"height": _height(len(counts)), "xaxis_title": "trials"})


def _height(rows: int) -> int:
    return max(240, 110 + _ROW_PX * rows)


def _label(text: str, width: int = _LABEL_WIDTH) -> str:
    """Wrap and escape a text, because Plotly interprets some HTML tags."""
    return "<br>".join(html.escape(line) for line in wrap(text, width))


_FIGURES: Mapping[str, Callable[[StudyRecord], go.Figure]] = {
    "history": _history,
    "curves": _curves,
    "importance": _importance,
    "parallel": _parallel,
    "timeline": _timeline,
    "outcomes": _outcomes,
}
