"""What every way to change words has in common."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Method"]


@dataclass(frozen=True)
class Method:
    """A way to change words.

    Attributes:
        width: How many neighbouring words it takes at a time.
        change: Gives each of these words its new text; an empty one deletes the word.
        draws: Whether it draws from the global generators of Python and numpy.
    """

    width: int
    change: Callable[[list[str]], list[str]]
    draws: bool = False
