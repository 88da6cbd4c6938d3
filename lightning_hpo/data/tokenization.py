"""Tokenize texts with the `tokenizers` library only, so that a registered model needs no `transformers`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lightning_hpo.data.ragged import Ragged, Stretch

__all__ = ["TokenizedText", "token_stretches", "tokenize"]

# The tokenizer library takes a batch at a time; this bounds its memory.
_TEXTS_AT_ONCE = 256
# Whether a character is white space, by its number; behind the last that is, none is.
_WHITE = np.array([chr(code).isspace() for code in range(0x3002)])


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


def tokenize(tokenizer: Tokenizer, texts: Iterable[str]) -> list[TokenizedText]:
    """The whole of each text as tokens, nothing cut and no special token added."""
    rows = Ragged.gathered(token_stretches(tokenizer, texts), np.int32, (3,))
    return [TokenizedText(rows[row][:, 0], rows[row][:, 1:]) for row in range(len(rows))]


def token_stretches(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Stretch]:
    """The same, some texts at a time: id, start and end of each token, shape [tokens, 3]."""
    # Said in full: a tokenizer.json may hold truncation and padding of its own.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = iter(texts)
    while batch := list(islice(texts, _TEXTS_AT_ONCE)):
        encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
        sizes = [len(made) for made in encoded]
        ids = np.fromiter(chain.from_iterable(made.ids for made in encoded), np.int32, sum(sizes))
        flat = chain.from_iterable(chain.from_iterable(made.offsets for made in encoded))
        offsets = np.fromiter(flat, np.int32, 2 * len(ids)).reshape(-1, 2)
        yield np.column_stack([ids, _trimmed(batch, sizes, offsets)]), sizes


def _trimmed(texts: Sequence[str], sizes: Sequence[int], offsets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Offsets without white space at their ends, which byte-level tokenizers count as part of a token.

    Args:
        texts: The texts.
        sizes: Tokens of each.
        offsets: Of the tokens of all texts, shape [tokens, 2].
    """
    lengths = [len(text) for text in texts]
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    signs = ~_WHITE[np.minimum(codes, len(_WHITE) - 1)]
    # Of each place between two characters, all texts in a row: the next place at which a sign starts, and the last at
    # which one ends.
    places = np.arange(len(codes) + 1)
    ahead = np.minimum.accumulate(np.where(np.append(signs, True), places, len(codes))[::-1])[::-1]
    behind = np.maximum.accumulate(np.where(np.append(True, signs), places, 0))
    bases = np.repeat(np.cumsum([0, *lengths[:-1]]), sizes)
    trimmed = np.column_stack([ahead[offsets[:, 0] + bases] - bases, behind[offsets[:, 1] + bases] - bases])
    trimmed[trimmed[:, 0] >= trimmed[:, 1]] = -1
    return trimmed.astype(np.int32)
