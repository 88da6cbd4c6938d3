"""Tokenizes texts once, by the tokenizers library alone: a registered model does it, too, without transformers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lightning_hpo.data.tokenized_text import TokenizedText

__all__ = ["tokenize"]

# The tokenizer library takes a batch at a time; this bounds its memory.
_TEXTS_AT_ONCE = 256


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenizedText]:
    """The whole of each text as tokens, nothing cut and no special token added."""
    # Said in full: a tokenizer.json may hold truncation and padding of its own.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenized: list[TokenizedText] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = list(texts[start : start + _TEXTS_AT_ONCE])
        encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
        tokenized += [
            TokenizedText(np.array(made.ids, np.int32), _trimmed(text, made.offsets))
            for text, made in zip(batch, encoded, strict=True)
        ]
    return tokenized


def _trimmed(text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    """Offsets without white space at their ends, which byte-level tokenizers count as part of a token."""
    trimmed = np.array(offsets, np.int32).reshape(-1, 2)
    for row, (start, end) in enumerate(offsets):
        piece = text[start:end]
        if piece != piece.strip() or not piece:
            begin = end - len(piece.lstrip())
            trimmed[row] = (begin, begin + len(piece.strip())) if piece.strip() else (-1, -1)
    return trimmed
