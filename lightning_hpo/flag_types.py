"""Bounds and choices of flags, written in their types so that `--help` shows them: `Annotated[int, Bounds(1)]`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["Bounds", "type_problems"]


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


def type_problems(prefix: str, function: Any, values: Mapping[str, Any]) -> list[str]:
    """Return an error line for each value that is outside the bounds, or not among the choices, of its type.

    Args:
        prefix: Group of the flags, such as `--data`.
        function: Function or class whose annotations have the types.
        values: Values by name. NaN is outside of any bounds, and None is within.
    """
    problems = []
    for name, kind in get_type_hints(function, include_extras=True).items():
        value = values.get(name)
        if get_origin(kind) is Literal and name in values and value not in get_args(kind):
            problems.append(f"{prefix}.{name}: got {value!r}; it must be one of {', '.join(get_args(kind))}")
        for part in (kind, *get_args(kind)):  # of `Annotated[...] | None`, its parts
            for bounds in getattr(part, "__metadata__", ()):
                if value is not None and value not in bounds:
                    problems.append(f"{prefix}.{name}: got {value}; it must be {bounds}")
    return problems
