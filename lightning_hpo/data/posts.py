"""The posts of a corpus: ids in memory, texts on disk."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from lightning_hpo.data.cache import Cache
from lightning_hpo.data.ragged import Ragged
from lightning_hpo.data.texts import Texts, text_stretches

__all__ = ["Posts"]


class Posts(Mapping[str, str]):
    """Text by post id, byte for byte as in the file, in the order of the file.

    Args:
        ids: Id of each post.
        texts: Text of each post; there may be more texts.
        cache: Keeps what is made of the posts.
        repeated: Rows of the file that said nothing new.

    Attributes:
        ids: The same.
        texts: The same.
        cache: The same.
        repeated: The same.
    """

    def __init__(self, ids: Sequence[str], texts: Texts, cache: Cache, repeated: int = 0) -> None:
        self.ids, self.texts, self.cache, self.repeated = ids, texts, cache, repeated

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> "Posts":
        """Posts in memory, of which nothing is kept."""
        return cls(list(texts), Texts(Ragged.gathered(text_stretches(texts.values()), np.uint8)), Cache())

    @cached_property
    def row(self) -> Mapping[str, int]:
        """The place of each id among the posts."""
        return {post_id: row for row, post_id in enumerate(self.ids)}

    def __getitem__(self, post_id: str) -> str:
        return self.texts[self.row[post_id]]

    def __contains__(self, post_id: object) -> bool:
        return post_id in self.row

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)
