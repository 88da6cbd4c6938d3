"""Groups of flags: how they are read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from lightning_hpo.exceptions import raise_problems
from lightning_hpo.flag_types import type_problems

__all__ = ["Settings"]


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
        return type_problems(self.FLAG, type(self), vars(self))
