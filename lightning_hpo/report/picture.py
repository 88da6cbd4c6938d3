"""What a picture shows, before a library draws it: the page and the PNG of it are drawn from the same figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Number", "Panel", "Picture", "Series"]

Number = float | None
"""A coordinate; None, NaN and infinity break a line."""


@dataclass(frozen=True)
class Series:
    """Marks of one kind and one meaning.

    Args:
        name: What they are, for the legend; empty where the axes say it.
        colour: Their colour, such as "#0072b2".
        x: [N] Places, or the lengths of bars.
        y: [N] Places.
        kind: "points"; "line", broken at None; "bars", which lie.
        texts: [N] What is said of each mark when it is pointed at.
        base: [N] Where each bar begins; by default 0.
        symbol: Shape of points.
        width: Width of a line in points, or the diameter of points.
        faint: Whether many of them overlap, and are to shine through.
    """

    name: str
    colour: str
    x: Sequence[Number]
    y: Sequence[Number]
    kind: Literal["points", "line", "bars"] = "points"
    texts: Sequence[str] = ()
    base: Sequence[float] = ()
    symbol: Literal["circle", "x", "star"] = "circle"
    width: float = 5.0
    faint: bool = False


@dataclass(frozen=True)
class Panel:
    """Two axes and what stands in them.

    Args:
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        series: What is drawn, the last on top.
        levels: Horizontal lines by their names.
        x_ticks: Names of places of the horizontal axis, where it has no numbers.
        y_ticks: The same of the vertical axis.
        notes: Texts at places (x, y).
        x_range: Ends of the horizontal axis; by default those of what is drawn.
        x_log: Whether the horizontal axis is logarithmic.
        x_whole: Whether only whole numbers make sense on it.
    """

    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Mapping[str, float] = field(default_factory=dict)
    x_ticks: Mapping[float, str] | None = None
    y_ticks: Mapping[float, str] | None = None
    notes: Sequence[tuple[float, float, str]] = ()
    x_range: tuple[float, float] | None = None
    x_log: bool = False
    x_whole: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture of the report.

    Args:
        name: Name of its file, and its place on the page.
        title: Its heading.
        says: What is to be seen, in words; or, without panels, why there is nothing to see.
        panels: Its parts; none if there is nothing to show.
    """

    name: str
    title: str
    says: str
    panels: Sequence[Panel] = ()
