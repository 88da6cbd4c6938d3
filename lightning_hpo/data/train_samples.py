"""Training windows by number; windows of unannotated pairs are cut on demand."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.batching import TrainBatchSampler
from lightning_hpo.data.corpus import TokenizedCorpus
from lightning_hpo.data.labels import IGNORED, WindowTarget, window_targets
from lightning_hpo.data.pairs import UNKNOWN, PairTable
from lightning_hpo.exceptions import InputError

__all__ = ["TrainSamples", "TrainWindow"]


@dataclass(frozen=True, slots=True)
class TrainWindow:
    """Tokens [first, stop) of the post in a row, with the target of each criterion that they are read for."""

    row: int
    first: int
    stop: int
    targets: Mapping[str, WindowTarget]


class TrainSamples:
    """Numbered windows of pairs, in the order of the pairs. Windows that cut a sentence of evidence are left out.

    Args:
        pairs: The pairs.
        tokens: The tokenized corpus.
        negative_ratio: Number of windows of unannotated pairs that an epoch draws, for each positive window.

    Attributes:
        kept: Sorted numbers of the windows of annotated pairs, which are in every epoch.
        drawn: Number of windows that an epoch should draw from the others.
        class_counts: Numbers of negative and of positive windows in an epoch.
        counts: Numbers of windows that were left out, lack whole sentences or do not exist, by what was done.

    Raises:
        InputError: No window is positive.
    """

    def __init__(self, pairs: PairTable, tokens: TokenizedCorpus, negative_ratio: float) -> None:
        self._pairs, self._posts, self._windows = pairs, tokens.posts, tokens.windows
        self._criteria = list(tokens.criteria.values())
        self._rooms = np.array([self._windows.room(criterion) for criterion in self._criteria])
        self._criterion_lengths = np.array([len(criterion) for criterion in self._criteria])
        self._tokens = self._posts.lengths
        self.counts: Counter[str] = Counter()
        annotated = np.flatnonzero(pairs.places != UNKNOWN)
        own = [self._cut(int(pair)) for pair in annotated]
        sizes = self._windows.count(self._tokens[pairs.rows], self._rooms[pairs.columns])
        sizes[annotated] = [len(samples) for samples in own]
        # Number of each pair's first window, then the number of all windows.
        self._firsts = np.concatenate([[0], np.cumsum(sizes)])
        self._samples = {
            int(self._firsts[pair]) + place: sample
            for pair, samples in zip(annotated, own, strict=True)
            for place, sample in enumerate(samples)
        }
        self.kept = np.array(list(self._samples), np.int64)
        # The last entry is for numbers above all kept ones.
        self._kept_lengths = np.array([*(sample.stop - sample.first for sample in self._samples.values()), 0])
        self._choose_draws(negative_ratio)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, number: int) -> TrainWindow:
        if number in self._samples:
            return self._samples[number]
        pair = int(np.searchsorted(self._firsts, number, side="right")) - 1
        first, stop = self._ranges(pair)[number - int(self._firsts[pair])]
        return TrainWindow(int(self._pairs.rows[pair]), first, stop, {self._pairs.key(pair)[1]: WindowTarget(0)})

    def lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of tokens of post and criterion in windows, shape [windows]."""
        pairs = self._pairs_of(numbers)
        columns = self._pairs.columns[pairs]
        room = self._rooms[columns]
        before = (numbers - self._firsts[pairs]) * (room - self._windows.stride)
        lengths = np.minimum(room, self._tokens[self._pairs.rows[pairs]] - before)
        places = np.searchsorted(self.kept, numbers)
        known = np.append(self.kept, UNKNOWN)[places] == numbers
        lengths = np.where(known, self._kept_lengths[places], lengths)
        with_criterion: NDArray[np.int64] = lengths + self._criterion_lengths[columns]
        return with_criterion

    def posts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of the post of windows, shape [windows]."""
        return self._pairs.rows[self._pairs_of(numbers)]

    def batches(self, batch_size: int, seed: int, *, spread: bool = True) -> TrainBatchSampler:
        """Return a sampler of the kept windows and of new draws in each epoch.

        Args:
            batch_size: Windows in a batch, at most.
            seed: The data's seed.
            spread: Whether the windows of a post are spread over batches.
        """
        return TrainBatchSampler(
            self.lengths,
            windows=len(self),
            kept=self.kept,
            drawn=self.drawn,
            batch_size=batch_size,
            seed=seed,
            posts=self.posts if spread else None,
        )

    def _pairs_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        # Sorted, since the search among millions is then many times faster.
        order = np.argsort(numbers)
        pairs = np.empty_like(numbers)
        pairs[order] = np.searchsorted(self._firsts, numbers[order], side="right") - 1
        return pairs

    def _choose_draws(self, negative_ratio: float) -> None:
        positives = sum(target.label == 1 for sample in self._samples.values() for target in sample.targets.values())
        others = len(self) - len(self.kept)
        if not positives:
            raise InputError("--data.annotations: no post of the training split has evidence; add annotated posts")
        self.drawn = round(negative_ratio * positives)
        if self.drawn > others:
            missing = "training windows that --data.negative_ratio asks for and the corpus does not have"
            self.counts[missing] = self.drawn - others
        self.class_counts = (len(self.kept) - positives + min(self.drawn, others), positives)

    def _ranges(self, pair: int) -> list[tuple[int, int]]:
        criterion = self._criteria[self._pairs.columns[pair]]
        return self._windows.ranges(int(self._tokens[self._pairs.rows[pair]]), criterion)

    def _cut(self, place: int) -> list[TrainWindow]:
        """Return the windows of an annotated pair."""
        pair, row, ranges = self._pairs[place], int(self._pairs.rows[place]), self._ranges(place)
        targets = window_targets(self._posts[row], ranges, pair.spans, met=pair.met)
        for target in targets:
            self.counts["training windows left out (they cut a sentence of evidence)"] += target.label == IGNORED
            self.counts["training windows with a part of a sentence longer than any window"] += target.partial
        return [
            TrainWindow(row, *window, {pair.criterion: target})
            for window, target in zip(ranges, targets, strict=True)
            if target.label != IGNORED
        ]
