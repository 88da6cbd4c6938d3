"""Cut a text at the borders of its evidence, so that words can change without losing track of the evidence."""

import itertools
import re
from collections.abc import Sequence

from numpy.random import Generator

from lightning_hpo.data.augmentation.methods import Method

__all__ = ["Pieces"]

_TOKENS = re.compile(r"\s+|\S+")


class Pieces:
    """Text split at the borders of its evidence into pieces, and each piece into words and white space.

    - A change stays within a piece, and a piece keeps at least one word. So evidence neither disappears nor grows.
    - A word that touches a border without white space between is never changed, such as the word before a full stop
      outside the evidence. Otherwise a token could contain characters from both sides of the border.

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
        # Two consecutive words have a border between them and no white space.
        self._settled = {word for pair in itertools.pairwise(self.words) if pair[1] - pair[0] == 1 for word in pair}

    @property
    def text(self) -> str:
        """The current text."""
        return "".join(self._tokens)

    def moved(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the current character ranges of spans of the original text."""
        lengths = [0] * len(self._borders)
        for piece, token in zip(self._piece_of, self._tokens, strict=True):
            lengths[piece + 1] += len(token)
        now = dict(zip(self._borders, itertools.accumulate(lengths), strict=True))
        return [(now[start], now[end]) for start, end in spans]

    def change(self, place: int, method: Method, generator: Generator) -> bool:
        """Change the neighbouring words from `place` on, one of `words`, and return whether anything changed.

        Each word changes at most once.
        """
        places = [place + 2 * further for further in range(method.width)]
        piece, last = self._piece_of[place], places[-1]
        # Only words of one piece that have not changed yet.
        if last >= len(self._tokens) or self._piece_of[last] != piece or not self._settled.isdisjoint(places):
            return False
        old = [self._tokens[each] for each in places]
        new = [word.strip() for word in method.change(old, generator)]
        deleted = new.count("")
        if new == old or deleted >= self._words_left[piece]:
            return False
        for each, word in zip(places, new, strict=True):
            self._tokens[each] = word
            if not word:
                self._drop_adjacent_space(each)
        self._words_left[piece] -= deleted
        self._settled.update(places)
        return True

    def _drop_adjacent_space(self, place: int) -> None:
        """Empty the white space after a deleted word or, at the end of its piece, before it."""
        piece = self._piece_of[place]
        for places in (range(place + 1, len(self._tokens)), range(place - 1, -1, -1)):
            adjacent = next((each for each in places if self._tokens[each]), None)
            if adjacent is not None and self._piece_of[adjacent] == piece and self._tokens[adjacent].isspace():
                self._tokens[adjacent] = ""
                return
