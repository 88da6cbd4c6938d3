"""What a part of the benchmark gives: figures by row and column, and ratios beside what they should be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

__all__ = ["Figures", "Ratio"]


@dataclass(frozen=True)
class Ratio:
    """A figure that something is asked of, most often a quotient.

    Args:
        name: What it is, with its unit if it has one.
        value: The figure.
        least: What it should be at least.
        most: What it should be at most.
    """

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """What it should be, in words."""
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"

    @property
    def met(self) -> bool:
        """Whether it is what it should be."""
        return not (
            self.value < (self.least or -math.inf) or self.value > (math.inf if self.most is None else self.most)
        )


@dataclass(frozen=True)
class Figures:
    """What a part has measured.

    Args:
        rows: Figures by their column, whose name says the unit, for each row.
        ratios: What is asked of them.
        remark: A line or more that belongs to them.
    """

    rows: Mapping[str, Mapping[str, float]]
    ratios: Sequence[Ratio] = ()
    remark: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        ratios = {
            ratio.name: {"value": ratio.value, "should be": ratio.wanted, "met": ratio.met} for ratio in self.ratios
        }
        return {"figures": {row: dict(values) for row, values in self.rows.items()}, "ratios": ratios} | (
            {"remark": self.remark} if self.remark else {}
        )

    def tables(self, title: str) -> Group:
        """The same for people.

        Args:
            title: What stands above the first column.
        """
        columns = list(dict.fromkeys(column for values in self.rows.values() for column in values))
        shown = Table(title, *columns, box=None)
        for row, values in self.rows.items():
            shown.add_row(row, *(_shown(values.get(column, math.nan)) for column in columns))
        asked = Table("", "is", "should be", "", box=None)
        for ratio in self.ratios:
            asked.add_row(ratio.name, _shown(ratio.value), ratio.wanted, "" if ratio.met else "missed")
        tables = [shown] * bool(self.rows) + [asked] * bool(self.ratios)
        return Group(*tables, self.remark) if self.remark else Group(*tables)


def _shown(value: float) -> str:
    """Three figures of a value; all of those before the point."""
    if math.isnan(value):
        return "-"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, 3 - whole)}f}"
