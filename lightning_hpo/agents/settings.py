"""Groups of flags: how they are read, and how their values are checked against their types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from lightning_hpo.exceptions import InputError

__all__ = ["Between", "Settings", "outside", "raise_problems", "type_problems"]


@dataclass(frozen=True)
class Between:
    """Inclusive bounds of a number, as metadata of its type: `Annotated[float, Between(0, 1)]`.

    `--help` shows them with the type.
    """

    low: float
    high: float

    def __repr__(self) -> str:
        """Return the bounds as `--help` shows them."""
        return f"{self.low:.10g} to {self.high:.10g}"


@dataclass(frozen=True)
class Settings:
    """Base of a group of flags. It is frozen, so that all agents can share one default instance."""

    FLAG: ClassVar[str] = "--model"

    @classmethod
    def read(cls, value: Self | Mapping[str, Any] | None) -> Self:
        """Return settings from an instance, from the plain values of a checkpoint, or from None (the defaults).

        Raises:
            InputError: If a name is not a flag of the group.
        """
        if isinstance(value, cls):
            return value
        given = dict(value or {})  # type: ignore[arg-type]
        names = [field.name for field in fields(cls)]
        raise_problems(
            f"{cls.FLAG}.{name}: no such setting; available: {', '.join(names)}" for name in given if name not in names
        )
        return cls(**given)

    def problems(self) -> list[str]:
        """Return one line for each value that its type does not allow."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type_problems(self.FLAG, get_type_hints(type(self), include_extras=True), values)


def type_problems(prefix: str, types: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Return one line for each value that is outside the bounds, or not among the choices, of its type.

    Args:
        prefix: Flag of the group, such as `--model.optim`.
        types: Type of each flag of the group, with its `Between` or `Literal`.
        values: Values by flag.
    """
    problems = []
    for name, value in values.items():
        flag, kind = f"{prefix}.{name}", types[name]
        if get_origin(kind) is Literal and value not in get_args(kind):
            problems.append(f"{flag}: got {value!r}; it must be one of {', '.join(get_args(kind))}")
        for part in (kind, *get_args(kind)):  # of `Annotated[...] | None`, its parts
            for bounds in getattr(part, "__metadata__", ()) if value is not None else ():
                problems += outside(flag, value, bounds.low, bounds.high)
    return problems


def outside(flag: str, value: float, low: float, high: float) -> list[str]:
    """Return one line if a number is outside its inclusive bounds or is NaN, else nothing."""
    return [] if low <= value <= high else [f"{flag}: got {value}; it must be from {low:.10g} to {high:.10g}"]


def raise_problems(problems: Iterable[str]) -> None:
    """Raise one error that holds all problems, if there are any.

    Raises:
        InputError: With one line for each problem.
    """
    found = list(problems)
    if found:
        raise InputError(found)
