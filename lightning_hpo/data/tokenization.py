"""Tokenize texts with the `tokenizers` library only, so that a registered model needs no `transformers`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lightning_hpo.data.ragged import Chunk, Ragged

__all__ = ["TokenizedText", "token_chunks", "tokenize"]

# Texts tokenized at a time; bounds the memory.
_TEXTS_AT_ONCE = 256
# A letter that no vocabulary of an encoder has, an Egyptian hieroglyph.
_UNKNOWN = "\U00013000"
# Whether a code point is white space. The last entry, 0x3001, stands for all higher code points: none is white space.
_WHITE = np.array([chr(code).isspace() for code in range(0x3002)])


@dataclass(frozen=True)
class TokenizedText:
    """Tokens of a text, without special tokens.

    Attributes:
        ids: Token ids, shape [tokens].
        offsets: Character range [start, end) of each token, shape [tokens, 2], without white space at either end;
            (-1, -1) for a token that is white space only.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, first: int, stop: int) -> "TokenizedText":
        """Return the tokens [first, stop). Their offsets still count from the start of the text."""
        return TokenizedText(self.ids[first:stop], self.offsets[first:stop])

    def characters(self) -> tuple[int, int]:
        """Return the character range [start, end) of all tokens, or (0, 0) if there are none."""
        real = self.offsets[self.offsets[:, 0] >= 0]
        return (int(real[0, 0]), int(real[:, 1].max())) if len(real) else (0, 0)

    def tokens_of(self, span: tuple[int, int]) -> tuple[int, int] | None:
        """Return the first and last token (inclusive) that overlap a span, or None if none does."""
        touched = np.flatnonzero(
            (self.offsets[:, 1] > span[0]) & (self.offsets[:, 0] < span[1]) & (self.offsets[:, 0] >= 0)
        )
        return (int(touched[0]), int(touched[-1])) if len(touched) else None


def tokenize(tokenizer: Tokenizer, texts: Iterable[str]) -> list[TokenizedText]:
    """Tokenize texts without truncation and without special tokens."""
    rows = Ragged.gathered(token_chunks(tokenizer, texts), np.int32, (3,))
    return [TokenizedText(rows[row][:, 0], rows[row][:, 1:]) for row in range(len(rows))]


def token_chunks(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Chunk]:
    """Tokenize texts batch by batch, and yield id, start and end of each token, shape [tokens, 3]."""
    # Explicit, since a tokenizer.json may enable truncation and padding.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A text that contains `[SEP]` or `</s>` is no separator.
    tokenizer.encode_special_tokens = True
    structure = _structural_ids(tokenizer)
    texts = iter(texts)
    while batch := list(islice(texts, _TEXTS_AT_ONCE)):
        encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
        sizes = [len(made) for made in encoded]
        ids = np.fromiter(chain.from_iterable(made.ids for made in encoded), np.int32, sum(sizes))
        flat = chain.from_iterable(chain.from_iterable(made.offsets for made in encoded))
        offsets = np.fromiter(flat, np.int32, 2 * len(ids)).reshape(-1, 2)
        rows = np.column_stack([ids, _trimmed(batch, sizes, offsets)])
        kept = ~np.isin(ids, structure)
        if not kept.all():
            texts_of_tokens = np.repeat(np.arange(len(sizes)), sizes)[kept]
            rows, sizes = rows[kept], np.bincount(texts_of_tokens, minlength=len(sizes)).tolist()
        yield rows, sizes


def _structural_ids(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """Return the ids of special tokens that a text must not contain.

    A SentencePiece model has them in its vocabulary, and finds them in a text that spells them. Such tokens are left
    out. The token of unknown characters stays.
    """
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None:
        special.discard(tokenizer.token_to_id(unknown))
    else:
        special -= set(tokenizer.encode(_UNKNOWN, add_special_tokens=False).ids)
    return np.array(sorted(special), np.int32)


def _trimmed(texts: Sequence[str], sizes: Sequence[int], offsets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Remove white space, which byte-level tokenizers include in a token, from both ends of its offsets."""
    lengths = [len(text) for text in texts]
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    visible = ~_WHITE[np.minimum(codes, len(_WHITE) - 1)]
    # For each position between two characters of the concatenated texts: the next position at which a visible character
    # starts, and the last one at which a visible character ends.
    places = np.arange(len(codes) + 1)
    ahead = np.minimum.accumulate(np.where(np.append(visible, True), places, len(codes))[::-1])[::-1]
    behind = np.maximum.accumulate(np.where(np.append(True, visible), places, 0))
    bases = np.repeat(np.cumsum([0, *lengths[:-1]]), sizes)
    trimmed = np.column_stack([ahead[offsets[:, 0] + bases] - bases, behind[offsets[:, 1] + bases] - bases])
    trimmed[trimmed[:, 0] >= trimmed[:, 1]] = -1
    return trimmed.astype(np.int32)
