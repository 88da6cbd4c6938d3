"""A table of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Rows under a heading.

    Args:
        name: Its place on the page.
        title: Its heading.
        says: What it tells, or, without rows, why there is nothing to tell.
        head: Names of the columns.
        rows: Its rows; as many texts each as there are columns.
        command: A command to be typed, shown under the table.
    """

    name: str
    title: str
    says: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    command: str = ""
