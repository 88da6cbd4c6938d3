"""Bounds of numeric flags, written in their types so that `--help` shows them: `Annotated[int, Bounds(1)]`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

__all__ = ["Bounds", "bounds_problems"]


@dataclass(frozen=True, repr=False)
class Bounds:
    """Bounds of a number.

    Attributes:
        low: Lower bound.
        high: Upper bound; infinity for none.
        exclusive: Whether the bounds themselves are not allowed.
    """

    low: float
    high: float = math.inf
    exclusive: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low < value < self.high if self.exclusive else self.low <= value <= self.high

    def __repr__(self) -> str:
        """Return the bounds as `--help` and errors show them."""
        if self.exclusive:
            return f"above {self.low:.10g} and below {self.high:.10g}"
        return f"{self.low:.10g} or more" if self.high == math.inf else f"from {self.low:.10g} to {self.high:.10g}"


def bounds_problems(prefix: str, function: Any, values: Mapping[str, Any]) -> list[str]:
    """Return an error line for each value that is outside the bounds of its type. NaN is outside of any bounds.

    Args:
        prefix: Group of the flags, such as `--data`.
        function: Function or class whose annotations have the bounds.
        values: Values by name; names without bounds and values that are None are ignored.
    """
    return [
        f"{prefix}.{name}: got {values[name]}; it must be {bounds}"
        for name, annotated in get_type_hints(function, include_extras=True).items()
        for bounds in getattr(annotated, "__metadata__", ())
        if isinstance(bounds, Bounds) and values.get(name) is not None and values[name] not in bounds
    ]
