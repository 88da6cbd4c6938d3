"""Posts tokenized once for a corpus and a tokenizer, kept beside the posts."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.cache import Cache
from lightning_hpo.data.tokenization import token_stretches
from lightning_hpo.data.tokenized_text import TokenizedText

__all__ = ["TokenizedPosts"]


class TokenizedPosts:
    """The tokens of every post by its row, read from a cache where there is one.

    Args:
        texts: Text of each post.
        tokenizer: The tokenizer.
        cache: That of the posts; nothing is kept without one.
    """

    def __init__(self, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, cache: Cache | None = None) -> None:
        backend = tokenizer.backend_tokenizer
        name = "tokens-" + hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]
        self._tokens = (cache or Cache()).ragged(name, lambda: token_stretches(backend, texts), np.int32, (3,))

    def __getitem__(self, row: int) -> TokenizedText:
        tokens = self._tokens[row]
        return TokenizedText(tokens[:, 0], tokens[:, 1:])

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each post, shape [posts]."""
        return self._tokens.sizes
