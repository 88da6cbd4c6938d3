"""What every way to change words has in common."""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

__all__ = ["Method"]


@dataclass(frozen=True)
class Method:
    """A way to change words.

    Attributes:
        change: Gives each of some neighbouring words its new text, drawing from the generator alone. An empty text
            deletes the word; words that it cannot change come back as they are.
        width: How many neighbouring words it takes at a time.
    """

    change: Callable[[list[str], Generator], list[str]]
    width: int = 1
