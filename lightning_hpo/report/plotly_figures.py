"""Figures of the page: Optuna's Plotly figures, with outcomes, baselines and labels added."""

import html
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go
import plotly.offline
from optuna import visualization
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from lightning_hpo.report.figures import MAX_AXES, MAX_LINES, MAX_TRIALS, started, with_curve, wrap
from lightning_hpo.report.outcomes import BEST, COLLAPSED, COLORS, COMPLETE, NAMES, count_outcomes
from lightning_hpo.report.study_record import StudyRecord, quiet, score, seconds_of
from lightning_hpo.study.eta import duration

__all__ = ["draw", "javascript", "to_html"]

_DASHES = ("dash", "dot", "dashdot", "longdash")
_HEIGHT_PX = 400
_ROW_PX = 30
_LABEL_WIDTH = 40
_TICK_WIDTH = 18
_ROOM_FOR_CHOICES = 32
_LEAST_DISTANCE = 0.045  # between two labels of a parallel coordinate, as a share of its length
_AXIS = {"automargin": True, "gridcolor": "#e3e3e3", "linecolor": "#888888", "zeroline": False, "exponentformat": "e"}
_STANDOFF_PX = 12  # Without it, Plotly writes the title of an axis across its long labels.


def javascript() -> str:
    """Return the source of plotly.js, which the page embeds."""
    source: str = plotly.offline.get_plotlyjs()
    return source


def draw(name: str, record: StudyRecord) -> list[go.Figure]:
    """Draw a figure that the study has the data for.

    Args:
        name: Name of the figure; `slices` has one for each parameter.
        record: The study.
    """
    with quiet():
        return _FIGURES[name](record)


def to_html(figure: go.Figure, identity: str) -> str:
    """Return a figure as an HTML element; the page must contain `javascript`.

    Args:
        figure: The figure.
        identity: Id of the element.
    """
    figure.update_layout(
        template="none",
        title=None,
        font={"color": "#1a1a1a", "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0, "xanchor": "left"},
        height=figure.layout.height or _HEIGHT_PX,
    )
    figure.update_xaxes(_AXIS, title_standoff=_STANDOFF_PX)
    figure.update_yaxes(_AXIS, title_standoff=_STANDOFF_PX)
    # The button bar would cover the figure. Dragging zooms and a double click resets without it.
    config = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}
    element: str = figure.to_html(config=config, include_plotlyjs=False, full_html=False, div_id=identity)
    return element


def _history(record: StudyRecord) -> list[go.Figure]:
    figure = visualization.plot_optimization_history(record.view(record.trials), target_name=record.monitor)
    points, best, *_ = figure.data
    figure.data = [points, best]  # without Optuna's empty trace for infeasible trials
    opacity = 0.75 if len(record.complete) <= 200 else 0.35
    points.update(name="complete", marker={"color": COMPLETE, "size": 7, "opacity": opacity})
    best.update(name="best so far", line={"color": BEST, "width": 2, "shape": "hv"})
    collapsed = [trial for trial in record.complete if trial.user_attrs.get("collapsed")]
    if collapsed:
        numbers, scores = [trial.number for trial in collapsed], [score(trial) for trial in collapsed]
        marker = {"color": COLLAPSED, "size": 8}
        figure.add_scatter(x=numbers, y=scores, mode="markers", name="collapsed", marker=marker)
    figure.update_xaxes(title="trial", range=(-1, len(record.trials)), **_whole_numbers(len(record.trials)))
    for (name, value), dash in zip(record.comparable_baselines.items(), itertools.cycle(_DASHES)):
        line = {"dash": dash, "color": "#555555", "width": 1.5}
        figure.add_hline(value, line=line, name=_label(f"baseline: {name} ({value:.4f})"), showlegend=True)
    return [figure]


def _curves(record: StudyRecord) -> list[go.Figure]:
    view = record.view(with_curve(record), MAX_LINES)
    figure = visualization.plot_intermediate_values(view)
    named: set[TrialState] = set()
    for trace, trial in zip(figure.data, view.get_trials(), strict=True):
        best = trial is record.best
        trace.update(
            x=[epoch + 1 for epoch in trace.x],
            name=f"best: trial {trial.number}" if best else NAMES[trial.state],
            showlegend=best or trial.state not in named,
            hovertemplate=f"trial {trial.number}: %{{y:.4f}}<extra></extra>",
            line={"color": BEST if best else COLORS[trial.state], "width": 2.5 if best else 1},
            marker={"size": 4},
            opacity=1.0 if best else 0.6,
            # Most lines are of complete trials, and would hide the others.
            zorder=2 if best else int(trial.state != TrialState.COMPLETE),
        )
        named |= set() if best else {trial.state}
    last = max(max(trial.intermediate_values) for trial in view.get_trials())
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="epoch", **_whole_numbers(last))
    figure.update_yaxes(title=record.monitor)
    return [figure]


def _whole_numbers(last: float) -> dict[str, int]:
    """Return the settings of an axis so short that Plotly would label fractions."""
    return {"dtick": 1} if last < 10 else {}


def _importance(record: StudyRecord) -> list[go.Figure]:
    figure = visualization.plot_param_importances(record.view(record.complete), target_name=record.monitor)
    figure.update_traces(marker_color=COMPLETE)
    figure.update_layout(height=_height(len(record.importances)), yaxis=_ticks(figure.data[0].y))
    figure.update_yaxes(title=None)
    figure.update_xaxes(title="share of the importance")
    return [figure]


def _slices(record: StudyRecord) -> list[go.Figure]:
    view = record.view(record.complete, MAX_TRIALS)
    return [
        _slice(record, visualization.plot_slice(view, [name], target_name=record.monitor), name)
        for name in record.parameters
    ]


def _slice(record: StudyRecord, figure: go.Figure, name: str) -> go.Figure:
    figure.update_traces(marker={"showscale": False, "size": 7})
    figure.update_xaxes(title=_label(name))
    kind = record.distributions[name]
    if isinstance(kind, CategoricalDistribution):
        labels = [_label(str(choice), 24) for choice in kind.choices]
        angle = 90 if sum(map(len, labels)) > _ROOM_FOR_CHOICES else 0
        figure.update_xaxes(tickvals=list(map(repr, kind.choices)), ticktext=labels, tickangle=angle, tickfont_size=11)
        figure.update_xaxes(range=(-0.5, len(labels) - 0.5))
    figure.update_yaxes(range=_score_range(record))
    if record.best is not None and name in record.best.params:
        value = record.best.params[name]
        x = repr(value) if isinstance(kind, CategoricalDistribution) else value
        star = {"color": BEST, "size": 15, "symbol": "star"}
        figure.add_scatter(x=[x], y=[score(record.best)], mode="markers", marker=star, name="best", showlegend=False)
    return figure


def _score_range(record: StudyRecord) -> tuple[float, float]:
    """Return the same limits for all slices, so that they can be compared."""
    low, high = min(map(score, record.complete)), max(map(score, record.complete))
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _parallel(record: StudyRecord) -> list[go.Figure]:
    view = record.view(record.complete, MAX_LINES)
    names = sorted(record.parameters[:MAX_AXES])
    figure = visualization.plot_parallel_coordinate(view, names, target_name=record.monitor)
    # Optuna cuts labels after 17 characters, which leaves names of one group alike.
    labels = [_label(name, 16) for name in (record.monitor, *names)]
    figure.update_xaxes(ticktext=labels, tickangle=0, tickfont_size=12)
    figure.update_layout(height=560, annotations=_readable(figure.layout.annotations))
    return [figure]


def _readable(annotations: Any) -> list[Any]:
    """Wrap the labels of the axes, and drop those that would cover another one."""
    kept: list[Any] = []
    for each in annotations:
        if all(each.x != other.x or abs(each.y - other.y) >= _LEAST_DISTANCE for other in kept):
            each.update(text=_label(each.text, _TICK_WIDTH), bgcolor="rgba(255, 255, 255, 0.7)")
            kept.append(each)
    return kept


def _timeline(record: StudyRecord) -> list[go.Figure]:
    view = record.view(started(record), MAX_TRIALS)
    figure = visualization.plot_timeline(view)
    trials = {trial.number: trial for trial in view.get_trials()}
    for trace in figure.data:
        state = TrialState[trace.name]
        # Optuna's texts hold all parameters and attributes, which is over 1 MB at 1,000 trials.
        texts = [f"trial {number}: {NAMES[state]}, {duration(seconds_of(trials[number]))}" for number in trace.y]
        trace.update(name=NAMES[state], marker={"color": COLORS[state]}, text=texts)
        trace.update(hovertemplate="%{text}<extra></extra>")
    figure.update_yaxes(title="trial", autorange="reversed")
    figure.update_xaxes(title="time")
    return [figure]


def _outcomes(record: StudyRecord) -> list[go.Figure]:
    counts = count_outcomes(record.trials)[::-1]
    labels = [f"{each.label} ({each.count})" for each in counts]
    bars = go.Bar(
        x=[each.count for each in counts],
        y=labels,
        orientation="h",
        marker={"color": [COLORS[each.state] for each in counts]},
        hovertemplate="%{y}<extra></extra>",
    )
    figure = go.Figure(bars, {"height": _height(len(counts)), "yaxis": _ticks(labels)})
    figure.update_xaxes(title="trials", **_whole_numbers(max(bars.x)))
    return [figure]


def _height(rows: int) -> int:
    return max(240, 110 + _ROW_PX * rows)


def _ticks(names: Any) -> dict[str, Any]:
    """Return the settings of an axis of names: all of them, wrapped."""
    return {"tickvals": list(names), "ticktext": [_label(name, _LABEL_WIDTH) for name in names]}


def _label(text: str, width: int = _LABEL_WIDTH) -> str:
    """Wrap and escape a text, because Plotly interprets some HTML tags."""
    return "<br>".join(html.escape(line) for line in wrap(text, width))


_FIGURES: Mapping[str, Callable[[StudyRecord], list[go.Figure]]] = {
    "history": _history,
    "curves": _curves,
    "importance": _importance,
    "slices": _slices,
    "parallel": _parallel,
    "timeline": _timeline,
    "outcomes": _outcomes,
}
