"""What a picture shows, before a library draws it: the page and the PNG of it are drawn from the same figures."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["FEW", "WIDEST", "Number", "Panel", "Picture", "Series", "broken", "with_room"]

Number = float | None
"""A coordinate; None, NaN and infinity break a line."""

FEW = 200
"""Up to so many marks are drawn each for itself; more of them shine through each other."""

WIDEST = 42
"""Characters after which a label is broken, where nothing else is said."""


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
        levels: Horizontal lines by their names, each dashed in its own way.
        x_ticks: Names of places of the horizontal axis, where it has no numbers.
        y_ticks: The same of the vertical axis.
        notes: Texts at places (x, y); a line break in one stays.
        x_range: Ends of the horizontal axis; by default those of what is drawn.
        y_range: Ends of the vertical axis; by default those of what is drawn, or of the names of its places.
        x_log: Whether the horizontal axis is logarithmic.
        x_whole: Whether only whole numbers make sense on it.
        widest_tick: Characters after which the name of a place is broken.
    """

    x_label: str
    y_label: str
    series: Sequence[Series]
    levels: Mapping[str, float] = field(default_factory=dict)
    x_ticks: Mapping[float, str] | None = None
    y_ticks: Mapping[float, str] | None = None
    notes: Sequence[tuple[float, float, str]] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_log: bool = False
    x_whole: bool = False
    widest_tick: int = WIDEST

    @property
    def y_ends(self) -> tuple[float, float] | None:
        """Ends of the vertical axis, if they do not follow from what is drawn."""
        if self.y_range is None and self.y_ticks:
            return min(self.y_ticks) - 0.6, max(self.y_ticks) + 0.6
        return self.y_range


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


def broken(text: str, widest: int = WIDEST) -> list[str]:
    """The lines of a label: long ones are broken, not cut."""
    return [line for part in text.split("\n") for line in textwrap.wrap(part, widest) or [""]]


def with_room(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that holds the values, with room for the marks at both."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05
    return low - room, high + room
