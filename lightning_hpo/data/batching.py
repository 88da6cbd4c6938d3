"""Batches of windows: random windows of similar length in training, whole pairs in evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

__all__ = ["Draw", "TrainBatchSampler", "pair_batches"]

# Number of batches that are cut from one sorted block, as in transformers' LengthGroupedSampler: more batches mean less
# padding, fewer mean more randomness.
_BATCHES_A_BLOCK = 50
# Number of neighbouring batches over which the windows of a post are spread. They have similar lengths: sorted by
# length alone, a batch of a small corpus has the same post several times.
_BATCHES_SPREAD = 4


@dataclass(frozen=True, slots=True)
class Draw:
    """A window drawn for training. Together with the data's seed it determines the sample."""

    epoch: int
    index: int


class TrainBatchSampler(Sampler[list[Draw]]):
    """Batches of windows of similar length, redrawn in each epoch.

    Args:
        lengths: Returns the number of tokens of windows, shape [windows], given their numbers.
        windows: Number of windows.
        kept: Sorted numbers of the windows that are in every epoch. Each epoch draws from all others.
        drawn: Number of windows that each epoch draws.
        batch_size: Windows in a batch, at most.
        seed: The data's seed.
        posts: Returns the post of windows, shape [windows], given their numbers: windows of a post are then spread over
            batches, whose sizes differ by one at most. None: as in version 0.1.0.

    Attributes:
        epoch: Epoch of the next pass.
        next_batch: First batch of the next pass.
    """

    def __init__(
        self,
        lengths: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        *,
        windows: int,
        kept: NDArray[np.int64],
        drawn: int,
        batch_size: int,
        seed: int,
        posts: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None,
    ) -> None:
        self._posts = posts
        self._lengths, self._kept, self._others = lengths, kept, windows - len(kept)
        self._drawn = min(drawn, self._others)
        self._batch_size, self._seed = batch_size, seed
        self.next_batch = 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass. A start position within another epoch is reset."""
        if epoch != self.epoch:
            self.epoch, self.next_batch = epoch, 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Start the next pass at a batch of an epoch, or at the next epoch if the epoch has no such batch."""
        past = batch >= len(self)
        self.epoch, self.next_batch = (epoch + 1, 0) if past else (epoch, batch)

    def batches(self, epoch: int) -> Iterator[list[Draw]]:
        """Yield all batches of an epoch."""
        return ([Draw(epoch, number) for number in batch.tolist()] for batch in self._batches(epoch))

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([self._seed, epoch])
        others = generator.choice(self._others, self._drawn, replace=False)
        # The draw counts only the windows that are not kept, so each kept window before one adds 1 to its number.
        others += np.searchsorted(self._kept - np.arange(len(self._kept)), others, side="right")
        chosen = np.concatenate([self._kept, others])
        generator.shuffle(chosen)
        # Blocks of about equal size: a short one at the end would be mostly padding.
        blocks = -(-len(self) // _BATCHES_A_BLOCK)
        ends = self._batch_size * (len(self) * np.arange(1, blocks) // blocks)
        cut = []
        for block, lengths in zip(np.split(chosen, ends), np.split(self._lengths(chosen), ends), strict=True):
            block = block[np.argsort(lengths, kind="stable")]
            cut += self._cut(block) if self._posts is None else self._spread(block, self._posts(block))
        return [cut[place] for place in generator.permutation(len(cut))]

    def _cut(self, block: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [block[first : first + self._batch_size] for first in range(0, len(block), self._batch_size)]

    def _spread(self, block: NDArray[np.int64], posts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut a sorted block into batches, and deal the windows of each few neighbours to them post by post."""
        batches = []
        count = -(-len(block) // self._batch_size)
        ends = len(block) * np.arange(count + 1) // count
        for first in range(0, count, _BATCHES_SPREAD):
            last = min(first + _BATCHES_SPREAD, count)
            part = slice(ends[first], ends[last])
            by_post = block[part][np.argsort(posts[part], kind="stable")]
            batches += [by_post[place :: last - first] for place in range(last - first)]
        return batches

    def __len__(self) -> int:
        """Return the number of batches in an epoch, which is the same for all epochs."""
        return -(-(len(self._kept) + self._drawn) // self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        start, self.next_batch = self.next_batch, 0
        yield from islice(self.batches(self.epoch), start, None)


def pair_batches(
    longest: NDArray[np.int64], counts: NDArray[np.int64], windows: int, tokens: int | None = None
) -> list[NDArray[np.int64]]:
    """Group whole pairs into batches, longest windows first, so that an out-of-memory error occurs at the start.

    Args:
        longest: Tokens of the longest window of each pair, shape [pairs].
        counts: Windows of each pair, shape [pairs].
        windows: Maximum number of windows in a batch. Only a batch of a single pair may have more.
        tokens: Maximum number of tokens in a batch, padding included; None for no limit. Only a batch of a single pair
            may have more.

    Returns:
        Indices of the pairs of each batch.
    """
    order = np.argsort(-longest, kind="stable")
    starts, room = [], 0
    for place, (length, count) in enumerate(zip(longest[order].tolist(), counts[order].tolist(), strict=True)):
        if not place or count > room:
            starts.append(place)
            room = windows if tokens is None else min(windows, tokens // length)
        room -= count
    return np.split(order, starts)[1:]
