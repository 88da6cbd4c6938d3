"""The three parts of a corpus."""

from dataclasses import dataclass

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """Post ids by part, each in the order of the corpus."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
