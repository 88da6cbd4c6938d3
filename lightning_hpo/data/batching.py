"""Decides which windows go into a batch: in training by chance and length, in scoring by pair and length."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

__all__ = ["Draw", "TrainBatchSampler", "pair_batches"]

# At most so many batches, as many as in transformers' own sampler, are cut from one sorted stretch: less padding with
# more, more chance with fewer.
_BATCHES_SORTED_TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Draw:
    """A window drawn for training; with the data's seed it decides all there is to a sample."""

    epoch: int
    index: int


class TrainBatchSampler(Sampler[list[Draw]]):
    """Batches of windows of like length, drawn anew each epoch from a seed.

    Args:
        lengths: Gives the tokens of some windows, shape [windows], by their numbers.
        windows: How many there are.
        kept: Numbers of those that are in every epoch, in order; from all others each epoch draws.
        drawn: How many each epoch draws.
        batch_size: Windows in a batch; the last may have fewer.
        seed: The data's seed.
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
    ) -> None:
        self._lengths, self._kept, self._others = lengths, kept, windows - len(kept)
        self._drawn = min(drawn, self._others)
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

    def batches(self, epoch: int) -> Iterator[list[Draw]]:
        """All batches of an epoch."""
        return ([Draw(epoch, number) for number in batch.tolist()] for batch in self._batches(epoch))

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([self._seed, epoch])
        others = generator.choice(self._others, self._drawn, replace=False)
        # Numbered without those that are kept; behind each of these, numbers are one higher.
        others += np.searchsorted(self._kept - np.arange(len(self._kept)), others, side="right")
        chosen = np.concatenate([self._kept, others])
        generator.shuffle(chosen)
        # All about as long, since a short one at the end would be mostly padding.
        stretches = -(-len(self) // _BATCHES_SORTED_TOGETHER)
        ends = self._batch_size * (len(self) * np.arange(1, stretches) // stretches)
        cut = []
        for part, lengths in zip(np.split(chosen, ends), np.split(self._lengths(chosen), ends), strict=True):
            part = part[np.argsort(lengths, kind="stable")]
            cut += [part[first : first + self._batch_size] for first in range(0, len(part), self._batch_size)]
        return [cut[place] for place in generator.permutation(len(cut))]

    def __len__(self) -> int:
        """Batches in an epoch, the same for every epoch."""
        return -(-(len(self._kept) + self._drawn) // self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        start, self._next_batch = self._next_batch, 0
        yield from islice(self.batches(self.epoch), start, None)


def pair_batches(
    longest: NDArray[np.int64], counts: NDArray[np.int64], windows: int, tokens: int | None = None
) -> list[NDArray[np.int64]]:
    """Batches of whole pairs, the longest windows first, so that memory runs out at once or never.

    Args:
        longest: Tokens of the longest window of each pair, shape [pairs].
        counts: Windows of each pair, shape [pairs].
        windows: Most windows in a batch; only a pair that has more by itself exceeds it.
        tokens: Most tokens in a batch, but for one of a single pair; None: any number.

    Returns:
        The pairs of each batch.
    """
    order = np.argsort(-longest, kind="stable")
    starts, room = [], 0
    for place, (length, count) in enumerate(zip(longest[order].tolist(), counts[order].tolist(), strict=True)):
        if not place or count > room:
            starts.append(place)
            room = windows if tokens is None else min(windows, tokens // length)
        room -= count
    return np.split(order, starts)[1:]
