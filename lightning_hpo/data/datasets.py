"""Datasets whose items are batches: one for training, one for evaluation and prediction."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_hpo.data.augmentation import Augmentation, Augmenter
from lightning_hpo.data.batching import Draw, pair_batches
from lightning_hpo.data.corpus import TokenizedCorpus
from lightning_hpo.data.labels import WindowTarget, window_targets
from lightning_hpo.data.pairs import Pair, PairTable
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.train_samples import TrainSamples, TrainWindow
from lightning_hpo.data.windows import Window

__all__ = ["EvalDataset", "Labels", "PairKeys", "TrainDataset", "fitting"]

PairKeys = Callable[[Sequence[Pair]], dict[str, Any]]

# An augmented text may not fit into the window, or have the same tokens as before; then the augmentation is redrawn.
_ATTEMPTS = 4

Labels = Callable[[Sequence[WindowTarget], Sequence[int]], dict[str, Tensor]]


class TrainDataset(Dataset[dict[str, Tensor]]):
    """Dataset that returns a batch for a list of draws.

    A sample depends only on the data's seed, its epoch and its index. So it is the same in every worker process.

    Raises:
        InputError: A method of the augmentation needs a package or data that is missing.
    """

    def __init__(
        self,
        samples: TrainSamples | Sequence[TrainWindow],
        tokens: TokenizedCorpus,
        *,
        labels: Labels,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._samples, self._labels = samples, labels
        self._texts, self._posts, self._criteria = tokens.texts, tokens.posts, tokens.criteria
        self._windows = tokens.windows
        self._augmentation, self._seed = augmentation, seed
        self._augmenter = Augmenter(augmentation)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, draws: list[Draw]) -> dict[str, Tensor]:
        """Return a batch.

        In addition to the windows and the labels, it has these keys:

        - `augmented` [windows]: whether a window was changed
        - `unaugmentable` [windows]: whether a window was drawn for augmentation, but could not be changed
        """
        made = [self._sample(draw) for draw in draws]
        windows, targets, drawn, changed = (list(column) for column in zip(*made, strict=True))
        labels = self._labels(targets, [window.post_start for window in windows])
        augmented = torch.tensor(changed)
        unaugmentable = torch.tensor(drawn) & ~augmented
        return {**self._windows.collate(windows), **labels, "augmented": augmented, "unaugmentable": unaugmentable}

    def _sample(self, draw: Draw) -> tuple[Window, WindowTarget, bool, bool]:
        """Return a window, its target, whether it was drawn for augmentation, and whether it was changed."""
        sample = self._samples[draw.index]
        part = self._posts[sample.row].part(sample.first, sample.stop)
        generator = np.random.default_rng([self._seed, draw.epoch, draw.index])
        drawn = self._augmentation.applies(generator)
        changed = self._augmented(sample, part, generator) if drawn else None
        part, target = changed or (part, sample.target)
        return self._windows.compose(self._criteria[sample.criterion], part), target, drawn, changed is not None

    def _augmented(
        self, sample: TrainWindow, part: TokenizedText, generator: np.random.Generator
    ) -> tuple[TokenizedText, WindowTarget] | None:
        """Return tokens and target of the augmented text, or None if nothing could be changed."""
        text = self._texts[sample.row]
        start, end = part.characters()
        # Byte-level tokenizers include the space before a word in its token.
        start -= text[start - 1 : start].isspace()
        ranges = [part.part(first, last + 1).characters() for first, last in sample.target.spans]
        spans = [(first - start, last - start) for first, last in ranges]
        for _ in range(_ATTEMPTS):
            new_text, moved = self._augmenter.augment(text[start:end], spans, generator)
            if new_text == text[start:end]:
                return None
            found = self._fitted(sample, self._windows.tokenize([new_text])[0], moved)
            if found and not np.array_equal(found[0].ids, part.ids):
                return found
        return None

    def _fitted(
        self, sample: TrainWindow, text: TokenizedText, spans: Sequence[tuple[int, int]]
    ) -> tuple[TokenizedText, WindowTarget] | None:
        """Cut an augmented text so that it fits into the window; return None if not all of its evidence fits."""
        room, target = self._windows.room(self._criteria[sample.criterion]), sample.target
        evidence = [found for span in spans if (found := text.tokens_of(span))]
        if target.partial:
            evidence = [(first, min(last, first + room - 1)) for first, last in evidence]
        cut = fitting(len(text), room, evidence)
        if cut is None or len(evidence) < len(spans):
            return None
        first, stop = cut
        kept = tuple((start - first, end - first) for start, end in evidence)
        return text.part(first, stop), replace(target, spans=kept)


def fitting(tokens: int, room: int, evidence: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the part of a text that fits and contains all evidence.

    Tokens are removed from the end with more tokens outside the evidence, and from the other end if that is not enough.

    Args:
        tokens: Number of tokens of the text.
        room: Number of tokens that fit, at least one.
        evidence: First and last token (inclusive) of each piece.

    Returns:
        The token range [first, stop), or None if the evidence does not fit or the text has no tokens.
    """
    excess = max(0, tokens - room)
    before = min((first for first, _ in evidence), default=0)
    behind = tokens - 1 - max((last for _, last in evidence), default=-1)
    if not tokens or excess > before + behind:
        return None
    longer = min(excess, max(before, behind))
    first = longer if before > behind else excess - longer
    return first, first + tokens - excess


class EvalDataset(Dataset[dict[str, Any]]):
    """Dataset whose item i is batch i: all windows of some pairs.

    Keys of a batch:

    - `input_ids`, `attention_mask` and, if the encoder has them, `token_type_ids` [windows, tokens]
    - `windows_at_once`: maximum number of windows that the network reads at a time, `batch_size`
    - `pair_index` [windows]: index in this batch of each window's pair
    - `post_ids` and `criteria`: lists with one entry for each pair
    - `offsets`, `texts`, labels and keys of pairs, as the arguments below say

    Args:
        pairs: The pairs.
        tokens: The tokenized corpus.
        batch_size: Maximum number of windows in a batch; a single pair may have more.
        labels: Converts targets to the agent's label tensors; None if the targets are not known.
        pair_keys: Returns further keys, given the pairs; None for no further keys.
        offsets: Whether batches have `offsets` [windows, tokens, 2], character ranges in the post, and `texts`, the
            post of each pair.
    """

    def __init__(
        self,
        pairs: PairTable,
        tokens: TokenizedCorpus,
        *,
        batch_size: int,
        labels: Labels | None = None,
        pair_keys: PairKeys | None = None,
        offsets: bool = False,
    ) -> None:
        self._pairs, self._posts, self._criteria, self._windows = pairs, tokens.posts, tokens.criteria, tokens.windows
        self._texts = tokens.texts
        self._batch_size, self._labels, self._pair_keys, self._offsets = batch_size, labels, pair_keys, offsets
        criteria = list(self._criteria.values())
        criterion_lengths = np.array([len(criterion) for criterion in criteria])[pairs.columns]
        rooms = np.array([self._windows.room(criterion) for criterion in criteria])[pairs.columns]
        post_lengths = self._posts.lengths[pairs.rows]
        longest = np.minimum(post_lengths, rooms) + criterion_lengths
        self._batches = pair_batches(longest, self._windows.count(post_lengths, rooms), batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = self._batches[index]
        pairs = [self._pairs[pair] for pair in batch]
        posts = [self._posts[row] for row in self._pairs.rows[batch]]
        ranges = [
            self._windows.ranges(len(post), self._criteria[pair.criterion])
            for pair, post in zip(pairs, posts, strict=True)
        ]
        windows = [
            self._windows.compose(self._criteria[pair.criterion], post.part(*window))
            for pair, post, own in zip(pairs, posts, ranges, strict=True)
            for window in own
        ]
        made: dict[str, Any] = {
            **self._windows.collate(windows),
            "windows_at_once": self._batch_size,
            "pair_index": torch.tensor([place for place, own in enumerate(ranges) for _ in own]),
            "post_ids": [pair.post_id for pair in pairs],
            "criteria": [pair.criterion for pair in pairs],
        }
        if self._offsets:
            made["offsets"] = self._windows.offsets(windows)
            made["texts"] = [self._texts[row] for row in self._pairs.rows[batch]]
        if self._labels:
            targets = [
                target
                for pair, post, own in zip(pairs, posts, ranges, strict=True)
                for target in window_targets(post, own, pair.spans, met=pair.met)
            ]
            made |= self._labels(targets, [window.post_start for window in windows])
        if self._pair_keys:
            made |= self._pair_keys(pairs)
        return made
