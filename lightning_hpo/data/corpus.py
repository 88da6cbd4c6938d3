"""What the loader hands on: posts, criteria, annotated pairs, and counts of what it repaired or left out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.pair import Pair
from lightning_hpo.data.pair_table import UNKNOWN, PairTable
from lightning_hpo.data.posts import Posts

__all__ = ["Corpus"]


@dataclass(frozen=True)
class Corpus:
    """Posts and their annotations, checked.

    Attributes:
        posts: Text by post id, byte for byte as in the file, in the order of the file.
        criteria: Text by criterion id.
        pairs: The annotated (post, criterion) pairs. Any other pair is not met.
        counts: How many rows, labels or sentences were left out or repaired, by what happened to them.
    """

    posts: Posts
    criteria: dict[str, str]
    pairs: tuple[Pair, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def pairs_of(self, post_ids: Sequence[str]) -> PairTable:
        """Every (post, criterion) pair of these posts, annotated or not, in the order of the posts."""
        row, width = self.posts.row, len(self.criteria)
        rows = np.repeat(np.fromiter((row[post_id] for post_id in post_ids), np.int64, len(post_ids)), width)
        columns = np.tile(np.arange(width), len(post_ids))
        return PairTable(
            self.posts.ids, tuple(self.criteria), self.pairs, rows, columns, self._places(rows * width + columns)
        )

    def _places(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place among the annotated pairs of each cell: row of the post x criteria + place of the criterion."""
        row, column = self.posts.row, {criterion: place for place, criterion in enumerate(self.criteria)}
        annotated = (row[pair.post_id] * len(column) + column[pair.criterion] for pair in self.pairs)
        # An end that no cell has.
        known = np.fromiter((*annotated, np.iinfo(np.int64).max), np.int64)
        order = np.argsort(known)
        nearest = order[np.searchsorted(known, cells, sorter=order)]
        return np.where(known[nearest] == cells, nearest, UNKNOWN)
