"""A criterion and a part of a post, as an encoder reads them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """One input of the encoder, without padding.

    Attributes:
        ids: Token ids with the special tokens, shape [tokens].
        types: Token type ids, shape [tokens].
        offsets: Character range of each token in the post, shape [tokens, 2]; (-1, -1) for a token not of the post.
        post_start: Index of the first token of the post.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    offsets: NDArray[np.int64]
    post_start: int

    def __len__(self) -> int:
        return len(self.ids)
