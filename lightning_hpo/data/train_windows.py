"""The windows of the training part, made into batches on demand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_hpo.data.augmentation import Augmentation, augment
from lightning_hpo.data.batching import Draw
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.window import Window
from lightning_hpo.data.window_target import WindowTarget
from lightning_hpo.data.windows import TokenizedText, Windows

__all__ = ["Labels", "TrainWindow", "TrainWindows"]

Labels = Callable[[Sequence[WindowTarget], Sequence[int]], dict[str, Tensor]]


@dataclass(frozen=True)
class TrainWindow:
    """Where a training sample comes from: the tokens [first, stop) of a post, beside a criterion."""

    post_id: str
    criterion: str
    first: int
    stop: int
    target: WindowTarget


class TrainWindows(Dataset[dict[str, Tensor]]):
    """Makes a batch from a list of draws.

    A sample depends on the seed, its epoch and its index alone, so it is the same whichever process makes it.

    Args:
        samples: The windows to draw from.
        texts: Text by post id.
        posts: The posts as tokens.
        criteria: The criteria as tokens, by id.
        windows: Composes and collates.
        labels: Turns targets into an agent's label tensors.
        augmentation: How samples are changed.
        seed: The data's seed.
    """

    def __init__(
        self,
        samples: Sequence[TrainWindow],
        *,
        texts: Mapping[str, str],
        posts: TokenizedPosts,
        criteria: Mapping[str, TokenizedText],
        windows: Windows,
        labels: Labels,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._samples, self._texts, self._posts, self._criteria = samples, texts, posts, criteria
        self._windows, self._labels = windows, labels
        self._augmentation, self._seed = augmentation, seed

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, draws: list[Draw]) -> dict[str, Tensor]:
        made = [self._sample(draw) for draw in draws]
        windows, targets, augmented = (list(column) for column in zip(*made, strict=True))
        labels = self._labels(targets, [window.post_start for window in windows])
        return {**self._windows.collate(windows), **labels, "augmented": torch.tensor(augmented)}

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of the post and the criterion in each window, shape [windows]."""
        return np.array([s.stop - s.first + len(self._criteria[s.criterion]) for s in self._samples], np.int64)

    def _sample(self, draw: Draw) -> tuple[Window, WindowTarget, bool]:
        sample = self._samples[draw.index]
        part = self._posts[sample.post_id].part(sample.first, sample.stop)
        target = sample.target
        generator = np.random.default_rng([self._seed, draw.epoch, draw.index])
        changed = self._augmented(sample, part, generator) if self._augmentation.applies(generator) else None
        if changed:
            part, target = changed
        return self._windows.compose(self._criteria[sample.criterion], part), target, changed is not None

    def _augmented(
        self, sample: TrainWindow, part: TokenizedText, generator: np.random.Generator
    ) -> tuple[TokenizedText, WindowTarget] | None:
        """Tokens and target of the changed text, or None where nothing could be changed."""
        start, end = part.characters()
        before = self._texts[sample.post_id][start:end]
        ranges = [part.part(first, last + 1).characters() for first, last in sample.target.spans]
        spans = [(first - start, last - start) for first, last in ranges]
        text, moved = augment(before, spans, self._augmentation, generator)
        if text == before:
            return None
        changed = self._windows.tokenize([text])[0]
        tokens = [found for span in moved if (found := changed.tokens_of(span))]
        if len(tokens) < len(moved) or not len(changed):
            return None
        first, stop = _fitting(len(changed), self._windows.room(self._criteria[sample.criterion]), tokens[:1])
        kept = tuple((a - first, b - first) for a, b in tokens if first <= a and b < stop)
        if tokens and not kept:
            return None
        return changed.part(first, stop), WindowTarget(sample.target.label, kept, sample.target.partial)


def _fitting(tokens: int, room: int, evidence: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The token range [first, stop) that fits, cut on the side that is farther from the evidence."""
    excess = max(0, tokens - room)
    if not excess or not evidence:
        return 0, tokens - excess
    before, behind = evidence[0][0], tokens - 1 - evidence[0][1]
    longer = min(excess, max(before, behind))
    first = longer if before > behind else min(excess - longer, before)
    return first, first + tokens - excess
