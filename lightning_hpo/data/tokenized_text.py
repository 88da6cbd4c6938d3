"""A text as tokens that know where they stand in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenizedText"]


@dataclass(frozen=True)
class TokenizedText:
    """Tokens of a text, without any special token.

    Attributes:
        ids: Token ids, shape [tokens].
        offsets: Character range [start, end) of each token, shape [tokens, 2], without white space at either end;
            (-1, -1) for a token that is nothing but white space.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, first: int, stop: int) -> "TokenizedText":
        """The tokens [first, stop); their offsets still count from the start of the text."""
        return TokenizedText(self.ids[first:stop], self.offsets[first:stop])

    def characters(self) -> tuple[int, int]:
        """The character range [start, end) from the first to the last token; (0, 0) where there is none."""
        real = self.offsets[self.offsets[:, 0] >= 0]
        return (int(real[0, 0]), int(real[:, 1].max())) if len(real) else (0, 0)

    def tokens_of(self, span: tuple[int, int]) -> tuple[int, int] | None:
        """First and last token (inclusive) that hold any character of a span, or None where none does."""
        touched = np.flatnonzero(
            (self.offsets[:, 1] > span[0]) & (self.offsets[:, 0] < span[1]) & (self.offsets[:, 0] >= 0)
        )
        return (int(touched[0]), int(touched[-1])) if len(touched) else None
