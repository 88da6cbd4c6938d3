"""Augment a text: choose which words change, and by which methods."""

from collections.abc import Sequence

import numpy as np

from lightning_hpo.data.augmentation.augmentation import Augmentation
from lightning_hpo.data.augmentation.methods import Method, load_methods
from lightning_hpo.data.augmentation.pieces import Pieces

__all__ = ["Augmenter"]


class Augmenter:
    """Changes words of texts and returns the new position of their evidence.

    Args:
        settings: The flags of the augmentation. If it is not enabled, no method is loaded.

    Raises:
        InputError: A method needs a package or data that is missing on this machine.
    """

    def __init__(self, settings: Augmentation) -> None:
        self._settings = settings
        self._methods = load_methods(settings.methods) if settings.enabled else []

    def augment(
        self, text: str, spans: Sequence[tuple[int, int]], generator: np.random.Generator
    ) -> tuple[str, list[tuple[int, int]]]:
        """Change words of a text.

        Args:
            text: The text of a window.
            spans: Its evidence as character ranges [start, end); they may overlap.
            generator: The only source of randomness.

        Returns:
            The new text and the new character range of each span, in the same order. The text is unchanged only if no
            method can change any of its words.
        """
        pieces = Pieces(text, spans)
        self._change(pieces, generator)
        return pieces.text, pieces.moved(spans)

    def _change(self, pieces: Pieces, generator: np.random.Generator) -> None:
        operations = self._settings.operations
        order = [self._methods[index] for index in generator.permutation(len(self._methods))]
        chosen = [order[number % len(order)] for number in range(operations)]
        most = max(1, int(self._settings.max_share * len(pieces.words)))
        wanted = left = int(generator.integers(min(_width(chosen), most), most + 1))
        for number, method in enumerate(chosen):
            spare = max(0, left - _width(chosen[number:]))
            # The first change is made even if `max_share` is too small for it.
            if method.width <= left or left == wanted:
                left -= _operate(pieces, method, method.width + spare // (operations - number), generator)
        for method in order[operations:]:
            if left == wanted:
                left -= _operate(pieces, method, method.width, generator)


def _width(methods: Sequence[Method]) -> int:
    """Return the number of words that the methods change if each is used once."""
    return sum(method.width for method in methods)


def _operate(pieces: Pieces, method: Method, quota: int, generator: np.random.Generator) -> int:
    """Change words at random positions until the quota is reached, and return the number of changed words."""
    changed = 0
    for index in generator.permutation(len(pieces.words)).tolist():
        if changed + method.width > quota:
            break
        if pieces.change(pieces.words[index], method, generator):
            changed += method.width
    return changed
