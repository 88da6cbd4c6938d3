"""Results of a part of the benchmark: figures by row and column, and ratios with their targets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

__all__ = ["Figures", "Ratio"]


@dataclass(frozen=True)
class Ratio:
    """Figure with a target, usually a quotient.

    Args:
        name: Name, with the unit if there is one.
        value: Measured value.
        least: Lower bound of the target.
        most: Upper bound of the target.
    """

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def target(self) -> str:
        """Target in words."""
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"

    @property
    def met(self) -> bool:
        """Whether the value is within the target."""
        return not (
            self.value < (self.least or -math.inf) or self.value > (math.inf if self.most is None else self.most)
        )


@dataclass(frozen=True)
class Figures:
    """Figures of a part of the benchmark.

    Args:
        rows: For each row, figures by column. Column names contain the units.
        ratios: Ratios with targets.
        remark: Lines to print below the tables.
    """

    rows: Mapping[str, Mapping[str, float]]
    ratios: Sequence[Ratio] = ()
    remark: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for programs."""
        ratios = {ratio.name: {"value": ratio.value, "target": ratio.target, "met": ratio.met} for ratio in self.ratios}
        return {"figures": {row: dict(values) for row, values in self.rows.items()}, "ratios": ratios} | (
            {"remark": self.remark} if self.remark else {}
        )

    def tables(self, title: str) -> Group:
        """Return the figures as tables.

        Args:
            title: Heading of the first column.
        """
        columns = list(dict.fromkeys(column for values in self.rows.values() for column in values))
        shown = Table(title, *columns, box=None)
        for row, values in self.rows.items():
            shown.add_row(row, *(_shown(values.get(column, math.nan)) for column in columns))
        targets = Table("", "measured", "target", "", box=None)
        for ratio in self.ratios:
            targets.add_row(ratio.name, _shown(ratio.value), ratio.target, "" if ratio.met else "missed")
        tables = [shown] * bool(self.rows) + [targets] * bool(self.ratios)
        return Group(*tables, self.remark) if self.remark else Group(*tables)


def _shown(value: float) -> str:
    """Format a value with three significant digits, or more if it has more digits before the point."""
    if math.isnan(value):
        return "-"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, 3 - whole)}f}"
