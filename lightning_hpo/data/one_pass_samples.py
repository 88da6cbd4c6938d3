"""Training windows of whole posts by number, each with the targets of all criteria."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.batching import TrainBatchSampler
from lightning_hpo.data.corpus import TokenizedCorpus
from lightning_hpo.data.labels import IGNORED, WindowTarget, window_targets
from lightning_hpo.data.pairs import UNKNOWN, PairTable
from lightning_hpo.data.train_samples import TrainWindow
from lightning_hpo.exceptions import InputError

__all__ = ["OnePassSamples"]

_UNMET = WindowTarget(0)


class OnePassSamples:
    """Numbered windows of posts, in the order of the posts. The attributes are those of `TrainSamples`.

    Windows with evidence for any criterion are in every epoch. Of the others, each epoch draws some.

    Args:
        pairs: Every post of the training split with every criterion.
        tokens: The tokenized corpus, whose windows are those of this form.
        negative_ratio: Number of windows without evidence that an epoch draws, for each window with evidence.

    Raises:
        InputError: No window has evidence.
    """

    def __init__(self, pairs: PairTable, tokens: TokenizedCorpus, negative_ratio: float) -> None:
        self._posts, self._windows = tokens.posts, tokens.windows
        self._criteria = tokens.criteria
        self._any = next(iter(tokens.criteria.values()))
        self._rows = np.unique(pairs.rows)
        self._tokens = self._posts.lengths[self._rows]
        sizes = self._windows.count(self._tokens, np.full(len(self._rows), self._windows.room(self._any)))
        # Number of each post's first window, then the number of all windows.
        self._firsts = np.concatenate([[0], np.cumsum(sizes)])
        self.counts: Counter[str] = Counter()
        self._targets: dict[int, dict[str, WindowTarget]] = {}
        for pair in np.flatnonzero(pairs.places != UNKNOWN):
            self._add(int(pair), pairs)
        labels = {number: [target.label for target in found.values()] for number, found in self._targets.items()}
        self.kept = np.array(sorted(number for number, found in labels.items() if 1 in found), np.int64)
        if not len(self.kept):
            raise InputError("--data.annotations: no post of the training split has evidence; add annotated posts")
        self._choose_draws(negative_ratio, [label for number in self.kept.tolist() for label in labels[number]])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, number: int) -> TrainWindow:
        place = int(np.searchsorted(self._firsts, number, side="right")) - 1
        first, stop = self._windows.ranges(int(self._tokens[place]), self._any)[number - int(self._firsts[place])]
        targets = {**dict.fromkeys(self._criteria, _UNMET), **self._targets.get(number, {})}
        return TrainWindow(int(self._rows[place]), first, stop, targets)

    def lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of tokens of the post in windows, shape [windows]."""
        places = np.searchsorted(self._firsts, numbers, side="right") - 1
        room = self._windows.room(self._any)
        before = (numbers - self._firsts[places]) * (room - self._windows.stride)
        lengths: NDArray[np.int64] = np.minimum(room, self._tokens[places] - before)
        return lengths

    def posts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of the post of windows, shape [windows]."""
        return self._rows[np.searchsorted(self._firsts, numbers, side="right") - 1]

    def batches(self, batch_size: int, seed: int, *, spread: bool = True) -> TrainBatchSampler:
        """Return a sampler, as `TrainSamples.batches` does."""
        return TrainBatchSampler(
            self.lengths,
            windows=len(self),
            kept=self.kept,
            drawn=self.drawn,
            batch_size=batch_size,
            seed=seed,
            posts=self.posts if spread else None,
        )

    def _add(self, index: int, pairs: PairTable) -> None:
        """Add the targets of an annotated pair, except those that are not met."""
        pair, row = pairs[index], int(pairs.rows[index])
        place = int(np.searchsorted(self._rows, row))
        ranges = self._windows.ranges(int(self._tokens[place]), self._any)
        targets = window_targets(self._posts[row], ranges, pair.spans, met=pair.met)
        for number, target in enumerate(targets, start=int(self._firsts[place])):
            if target != _UNMET:
                self._targets.setdefault(number, {})[pair.criterion] = target
            self.counts["labels of windows left out (they cut a sentence of evidence)"] += target.label == IGNORED
            self.counts["training windows with a part of a sentence longer than any window"] += target.partial

    def _choose_draws(self, negative_ratio: float, labels: list[int]) -> None:
        """Choose how many windows an epoch draws, and count its labels, given those of the kept windows."""
        others, wanted = len(self) - len(self.kept), round(negative_ratio * len(self.kept))
        self.drawn = min(wanted, others)
        positives = labels.count(1)
        rows = (len(self.kept) + self.drawn) * len(self._criteria)
        self.class_counts = (rows - positives - labels.count(IGNORED), positives)
