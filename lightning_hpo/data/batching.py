"""Decides which windows go into a batch: in training by chance and length, in scoring by pair and length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

__all__ = ["Draw", "TrainBatchSampler", "pair_batches"]

# So many batches are cut from one sorted stretch: less padding with more, more chance with fewer.
_BATCHES_SORTED_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Draw:
    """A window drawn for training; with the data's seed it decides all there is to a sample."""

    epoch: int
    index: int


class TrainBatchSampler(Sampler[list[Draw]]):
    """Batches of windows of like length, drawn anew each epoch from a seed.

    Args:
        lengths: Tokens of each window, shape [windows].
        kept: Indices of the windows that are in every epoch.
        pool: Indices of the windows from which each epoch draws.
        drawn: How many each epoch draws from the pool.
        batch_size: Windows in a batch; the last may have fewer.
        seed: The data's seed.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        kept: NDArray[np.int64],
        pool: NDArray[np.int64],
        drawn: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._lengths, self._kept, self._pool = lengths, kept, pool
        self._drawn = min(drawn, len(pool))
        self._batch_size, self._seed = batch_size, seed
        self._next_batch = 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass draws; a place in the middle of another epoch is forgotten."""
        if epoch != self.epoch:
            self.epoch, self._next_batch = epoch, 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next pass start within an epoch: at this batch, or with the next epoch where none is left."""
        past = batch >= len(self)
        self.epoch, self._next_batch = (epoch + 1, 0) if past else (epoch, batch)

    @property
    def next_batch(self) -> int:
        """The batch that the next pass starts at."""
        return self._next_batch

    def batches(self, epoch: int) -> list[list[Draw]]:
        """All batches of an epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        chosen = np.concatenate([self._kept, generator.choice(self._pool, self._drawn, replace=False)])
        generator.shuffle(chosen)
        stretch = self._batch_size * _BATCHES_SORTED_TOGETHER
        cut = []
        for start in range(0, len(chosen), stretch):
            part = chosen[start : start + stretch]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            cut += [part[first : first + self._batch_size] for first in range(0, len(part), self._batch_size)]
        return [[Draw(epoch, int(index)) for index in cut[place]] for place in generator.permutation(len(cut))]

    def __len__(self) -> int:
        """Batches in an epoch, the same for every epoch."""
        return -(-(len(self._kept) + self._drawn) // self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        start, self._next_batch = self._next_batch, 0
        yield from self.batches(self.epoch)[start:]


def pair_batches(lengths: Sequence[Sequence[int]], windows: int) -> list[list[int]]:
    """Batches of whole pairs, the longest windows first, so that memory runs out at once or never.

    Args:
        lengths: Tokens of each window of each pair.
        windows: Most windows in a batch; only a pair that has more by itself exceeds it.
    """
    batches: list[list[int]] = []
    room = 0
    for pair in sorted(range(len(lengths)), key=lambda pair: (-max(lengths[pair]), pair)):
        if not batches or len(lengths[pair]) > room:
            batches.append([])
            room = windows
        batches[-1].append(pair)
        room -= len(lengths[pair])
    return batches
