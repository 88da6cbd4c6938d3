"""A text that is cut at the borders of its evidence, so that its words can change and the evidence is found again."""

import itertools
import re
from collections.abc import Sequence

from numpy.random import Generator

from lightning_hpo.data.augmentation.method import Method

__all__ = ["Pieces"]

_TOKENS = re.compile(r"\s+|\S+")


class Pieces:
    """A text as pieces between borders of evidence, and each piece as words and white space in turn.

    Every change stays within a piece, and a piece keeps at least one of its words: evidence neither vanishes nor takes
    in what was outside. A word that touches a border without white space between, such as the last before a full
    stop that is not evidence any more, stays as it is: otherwise a token could come to hold both sides of the border.

    Args:
        text: The text.
        spans: Its evidence as character ranges [start, end); they may overlap.
    """

    def __init__(self, text: str, spans: Sequence[tuple[int, int]]) -> None:
        self._borders = sorted({0, len(text), *(border for span in spans for border in span)})
        self._tokens: list[str] = []
        self._piece_of: list[int] = []
        for piece, (start, end) in enumerate(itertools.pairwise(self._borders)):
            found = _TOKENS.findall(text[start:end])
            self._tokens += found
            self._piece_of += [piece] * len(found)
        self.words = [place for place, token in enumerate(self._tokens) if not token.isspace()]
        self._words_left = [0] * len(self._borders)
        for place in self.words:
            self._words_left[self._piece_of[place]] += 1
        # Two words in a row have a border between them, and no white space.
        self._settled = {word for pair in itertools.pairwise(self.words) if pair[1] - pair[0] == 1 for word in pair}

    @property
    def text(self) -> str:
        """The text as it is now."""
        return "".join(self._tokens)

    def moved(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where spans of the text as it was are now."""
        lengths = [0] * len(self._borders)
        for piece, token in zip(self._piece_of, self._tokens, strict=True):
            lengths[piece + 1] += len(token)
        now = dict(zip(self._borders, itertools.accumulate(lengths), strict=True))
        return [(now[start], now[end]) for start, end in spans]

    def change(self, place: int, method: Method, generator: Generator) -> bool:
        """Change some neighbouring words of a piece; a word changes once.

        Args:
            place: The first of them, out of `words`.
            method: Says how many, and gives them their new text.
            generator: What the method draws from.

        Returns:
            Whether anything changed.
        """
        places = [place + 2 * further for further in range(method.width)]
        if not self._may_change(places):
            return False
        old = [self._tokens[each] for each in places]
        new = [word.strip() for word in method.change(old, generator)]
        piece, deleted = self._piece_of[place], new.count("")
        if new == old or deleted >= self._words_left[piece]:
            return False
        for each, word in zip(places, new, strict=True):
            self._tokens[each] = word
            if not word:
                self._drop_space_beside(each)
        self._words_left[piece] -= deleted
        self._settled.update(places)
        return True

    def _may_change(self, places: Sequence[int]) -> bool:
        """Whether these are words of one piece that have not changed yet."""
        last = places[-1]
        return (
            last < len(self._tokens)
            and self._piece_of[last] == self._piece_of[places[0]]
            and self._settled.isdisjoint(places)
        )

    def _drop_space_beside(self, place: int) -> None:
        """Empty the white space behind a deleted word or, at the end of its piece, before it."""
        piece = self._piece_of[place]
        for places in (range(place + 1, len(self._tokens)), range(place - 1, -1, -1)):
            beside = next((each for each in places if self._tokens[each]), None)
            if beside is not None and self._piece_of[beside] == piece and self._tokens[beside].isspace():
                self._tokens[beside] = ""
                return
