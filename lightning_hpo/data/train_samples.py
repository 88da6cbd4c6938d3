"""Training windows by number; windows of unannotated pairs are cut on demand."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.labels import IGNORED, WindowTarget, window_targets
from lightning_hpo.data.pairs import UNKNOWN, PairTable
from lightning_hpo.data.posts import TokenizedPosts
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.windows import Windows

__all__ = ["TrainSamples", "TrainWindow"]


@dataclass(frozen=True, slots=True)
class TrainWindow:
    """The tokens [first, stop) of a post, by its row, beside a criterion."""

    row: int
    criterion: str
    first: int
    stop: int
    target: WindowTarget


class TrainSamples:
    """All windows of some pairs but those that cut a sentence of evidence, in the order of the pairs.

    Args:
        pairs: The pairs.
        posts: The posts as tokens.
        criteria: The criteria as tokens, by id.
        windows: How posts are cut.

    Attributes:
        kept: Numbers of the windows of annotated pairs, in order.
        positives: How many of them show the criterion or its evidence.
        counts: What was left out or is less than a sentence, by what happened to it.
    """

    def __init__(
        self, pairs: PairTable, *, posts: TokenizedPosts, criteria: Mapping[str, TokenizedText], windows: Windows
    ) -> None:
        self._pairs, self._windows = pairs, windows
        self._criteria = list(criteria.values())
        self._rooms = np.array([windows.room(criterion) for criterion in self._criteria])
        self._criterion_lengths = np.array([len(criterion) for criterion in self._criteria])
        self._tokens = posts.lengths
        self.counts: Counter[str] = Counter()
        annotated = np.flatnonzero(pairs.places != UNKNOWN)
        own = [self._cut(int(pair), posts) for pair in annotated]
        sizes = windows.count(self._tokens[pairs.rows], self._rooms[pairs.columns])
        sizes[annotated] = [len(samples) for samples in own]
        # Number of each pair's first window, and at last how many there are.
        self._firsts = np.concatenate([[0], np.cumsum(sizes)])
        self._samples = {
            int(self._firsts[pair]) + place: sample
            for pair, samples in zip(annotated, own, strict=True)
            for place, sample in enumerate(samples)
        }
        self.kept = np.array(list(self._samples), np.int64)
        # At the end what a number that is not among them finds.
        self._kept_lengths = np.array([*(sample.stop - sample.first for sample in self._samples.values()), 0])
        self.positives = sum(sample.target.label == 1 for sample in self._samples.values())

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, number: int) -> TrainWindow:
        if number in self._samples:
            return self._samples[number]
        pair = int(np.searchsorted(self._firsts, number, side="right")) - 1
        first, stop = self._ranges(pair)[number - int(self._firsts[pair])]
        return TrainWindow(int(self._pairs.rows[pair]), self._pairs.key(pair)[1], first, stop, WindowTarget(0))

    def lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the post and the criterion in some windows, shape [windows]."""
        # Among millions, numbers in order are found many times faster.
        order = np.argsort(numbers)
        pairs = np.empty_like(numbers)
        pairs[order] = np.searchsorted(self._firsts, numbers[order], side="right") - 1
        columns = self._pairs.columns[pairs]
        room = self._rooms[columns]
        before = (numbers - self._firsts[pairs]) * (room - self._windows.stride)
        lengths = np.minimum(room, self._tokens[self._pairs.rows[pairs]] - before)
        places = np.searchsorted(self.kept, numbers)
        known = np.append(self.kept, UNKNOWN)[places] == numbers
        lengths = np.where(known, self._kept_lengths[places], lengths)
        with_criterion: NDArray[np.int64] = lengths + self._criterion_lengths[columns]
        return with_criterion

    def _ranges(self, pair: int) -> list[tuple[int, int]]:
        criterion = self._criteria[self._pairs.columns[pair]]
        return self._windows.ranges(int(self._tokens[self._pairs.rows[pair]]), criterion)

    def _cut(self, place: int, posts: TokenizedPosts) -> list[TrainWindow]:
        """The windows of an annotated pair."""
        pair, row, ranges = self._pairs[place], int(self._pairs.rows[place]), self._ranges(place)
        targets = window_targets(posts[row], ranges, pair.spans, met=pair.met)
        for target in targets:
            self.counts["training windows left out (they cut a sentence of evidence)"] += target.label == IGNORED
            self.counts["training windows with a part of a sentence longer than any window"] += target.partial
        return [
            TrainWindow(row, pair.criterion, *window, target)
            for window, target in zip(ranges, targets, strict=True)
            if target.label != IGNORED
        ]
