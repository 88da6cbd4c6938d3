"""(post, criterion) pairs: one pair, and a table of many as columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNKNOWN", "Pair", "PairTable"]

UNKNOWN = -1


@dataclass(frozen=True)
class Pair:
    """One (post, criterion) pair.

    Attributes:
        post_id: The post.
        criterion: Id of the criterion.
        met: Whether the post meets the criterion.
        spans: Evidence as sorted character ranges [start, end) of the post. Empty if the criterion is not met, or if no
            evidence sentence was found in the post.
    """

    post_id: str
    criterion: str
    met: bool
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class PairTable(Sequence[Pair]):
    """Table of pairs, which creates `Pair` objects on demand: every post with every criterion may be millions.

    Attributes:
        ids: Id of every post.
        criteria: Id of every criterion.
        annotated: The annotated pairs. Any other pair is not met.
        rows: Row of each pair's post, shape [pairs].
        columns: Index of its criterion, shape [pairs].
        places: Its index in `annotated`, or -1 if it is not annotated, shape [pairs].
    """

    ids: Sequence[str]
    criteria: Sequence[str]
    annotated: Sequence[Pair]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> "PairTable": ...

    def __getitem__(self, index: int | slice) -> "Pair | PairTable":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        place = self.places[index]
        return self.annotated[place] if place != UNKNOWN else Pair(*self.key(index), met=False)

    def key(self, index: int) -> tuple[str, str]:
        """Return the ids of a pair's post and criterion."""
        return self.ids[self.rows[index]], self.criteria[self.columns[index]]

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "PairTable":
        """Select pairs by their indices or by a mask."""
        columns = (column[chosen] for column in (self.rows, self.columns, self.places))
        return PairTable(self.ids, self.criteria, self.annotated, *columns)

    @cached_property
    def met(self) -> NDArray[np.bool_]:
        """Whether each pair is met, shape [pairs]."""
        # The last entry, index -1, is for pairs without annotation.
        return np.array([*(pair.met for pair in self.annotated), False])[self.places]

    @cached_property
    def lost(self) -> NDArray[np.bool_]:
        """Whether each pair is met but its evidence was not found in the post, shape [pairs]."""
        return np.array([*(pair.met and not pair.spans for pair in self.annotated), False])[self.places]
