"""What the groups of flags of an agent share: how they are read, and how they say what is wrong with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from lightning_hpo.exceptions import InputError

__all__ = ["Settings", "outside", "raise_problems"]


@dataclass(frozen=True)
class Settings:
    """Base of a group of flags: frozen, so that one default instance can serve every agent."""

    FLAG: ClassVar[str] = "--model"

    @classmethod
    def read(cls, value: Self | Mapping[str, Any] | None) -> Self:
        """Take settings as they come: the object, the plain values of a checkpoint, or nothing for the defaults.

        Raises:
            InputError: If a value has a name that no flag of the group has.
        """
        if isinstance(value, cls):
            return value
        given = dict(value or {})  # type: ignore[arg-type]
        names = [field.name for field in fields(cls)]
        raise_problems(
            f"{cls.FLAG}.{name}: no such setting; there are {', '.join(names)}" for name in given if name not in names
        )
        return cls(**given)

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        return []


def outside(flag: str, value: float, low: float, high: float) -> list[str]:
    """Give the line for a number outside of its bounds (both allowed), or nothing; NaN is outside."""
    return [] if low <= value <= high else [f"{flag}: got {value}; it must be from {low:g} to {high:g}"]


def raise_problems(problems: Iterable[str]) -> None:
    """Raise all problems at once, if there are any.

    Raises:
        InputError: With one line a problem.
    """
    found = list(problems)
    if found:
        raise InputError(found)
