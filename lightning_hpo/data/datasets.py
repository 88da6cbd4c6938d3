"""Datasets whose items are batches: one for training, one for evaluation and prediction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_hpo.data.augmentation import Augmentation, Augmenter
from lightning_hpo.data.batching import Draw, pair_batches
from lightning_hpo.data.corpus import TokenizedCorpus
from lightning_hpo.data.labels import WindowTarget, window_targets
from lightning_hpo.data.one_pass_samples import OnePassSamples
from lightning_hpo.data.pairs import Pair, PairTable
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.train_samples import TrainSamples, TrainWindow
from lightning_hpo.data.windows import Part

__all__ = ["EvalDataset", "Labels", "PairKeys", "TrainDataset", "fitting"]

PairKeys = Callable[[Sequence[Pair]], dict[str, Any]]
Targets = Mapping[str, WindowTarget]

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
        samples: TrainSamples | OnePassSamples | Sequence[TrainWindow],
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
        parts = [
            Part(place, text, criterion, self._criteria[criterion])
            for place, (text, targets, _, _) in enumerate(made)
            for criterion in targets
        ]
        inputs = self._windows.inputs(parts)
        labels = self._labels([target for _, targets, _, _ in made for target in targets.values()], inputs.post_starts)
        augmented = torch.tensor([changed for _, _, _, changed in made])
        unaugmentable = torch.tensor([drawn for _, _, drawn, _ in made]) & ~augmented
        return {**inputs.tensors, **labels, "augmented": augmented, "unaugmentable": unaugmentable}

    def _sample(self, draw: Draw) -> tuple[TokenizedText, Targets, bool, bool]:
        """Return tokens, their targets, whether they were drawn for augmentation, and whether they were changed."""
        sample = self._samples[draw.index]
        part = self._posts[sample.row].part(sample.first, sample.stop)
        generator = np.random.default_rng([self._seed, draw.epoch, draw.index])
        drawn = self._augmentation.applies(generator)
        changed = self._augmented(sample, part, generator) if drawn else None
        return *(changed or (part, sample.targets)), drawn, changed is not None

    def _augmented(
        self, sample: TrainWindow, part: TokenizedText, generator: np.random.Generator
    ) -> tuple[TokenizedText, Targets] | None:
        """Return tokens and targets of the augmented text, or None if nothing could be changed."""
        text = self._texts[sample.row]
        start, end = part.characters()
        # Byte-level tokenizers include the space before a word in its token.
        start -= text[start - 1 : start].isspace()
        ranges = [
            part.part(first, last + 1).characters()
            for target in sample.targets.values()
            for first, last in target.spans
        ]
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
    ) -> tuple[TokenizedText, Targets] | None:
        """Cut an augmented text so that it fits into the window; return None if not all of its evidence fits."""
        room = min(self._windows.room(self._criteria[criterion]) for criterion in sample.targets)
        evidence = [found for span in spans if (found := text.tokens_of(span))]
        if any(target.partial for target in sample.targets.values()):
            evidence = [(first, min(last, first + room - 1)) for first, last in evidence]
        cut = fitting(len(text), room, evidence)
        if cut is None or len(evidence) < len(spans):
            return None
        first, stop = cut
        kept = iter([(start - first, end - first) for start, end in evidence])
        targets = {
            criterion: replace(target, spans=tuple(islice(kept, len(target.spans))))
            for criterion, target in sample.targets.items()
        }
        return text.part(first, stop), targets


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
    - `pair_index` [parts]: index in this batch of the pair of each part: a window, or a window and a criterion in the
      one-pass form
    - `post_ids` and `criteria`: lists with one entry for each pair
    - `offsets`, `texts`, labels and keys of pairs, as the arguments below say

    Args:
        pairs: The pairs.
        tokens: The tokenized corpus.
        batch_size: Maximum number of windows in a batch; a single pair may have more.
        labels: Converts targets to the agent's label tensors; None if the targets are not known.
        pair_keys: Returns further keys, given the pairs; None for no further keys.
        offsets: Whether batches have `offsets` [parts, tokens, 2], character ranges in the post, and `texts`, the post
            of each pair.
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
        counts = self._windows.count(post_lengths, rooms)
        if self._windows.shares_posts:
            self._batches = _post_batches(pairs.rows, post_lengths, counts, batch_size)
        else:
            self._batches = pair_batches(longest, counts, batch_size)

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
        parts = [
            Part((pair.post_id, *window), post.part(*window), pair.criterion, self._criteria[pair.criterion])
            for pair, post, own in zip(pairs, posts, ranges, strict=True)
            for window in own
        ]
        inputs = self._windows.inputs(parts, offsets=self._offsets)
        made: dict[str, Any] = {
            **inputs.tensors,
            "windows_at_once": self._batch_size,
            "pair_index": torch.tensor([place for place, own in enumerate(ranges) for _ in own]),
            "post_ids": [pair.post_id for pair in pairs],
            "criteria": [pair.criterion for pair in pairs],
        }
        if self._offsets:
            made["offsets"] = inputs.offsets
            made["texts"] = [self._texts[row] for row in self._pairs.rows[batch]]
        if self._labels:
            targets = [
                target
                for pair, post, own in zip(pairs, posts, ranges, strict=True)
                for target in window_targets(post, own, pair.spans, met=pair.met)
            ]
            made |= self._labels(targets, inputs.post_starts)
        if self._pair_keys:
            made |= self._pair_keys(pairs)
        return made


def _post_batches(
    rows: NDArray[np.int64], lengths: NDArray[np.int64], counts: NDArray[np.int64], windows: int
) -> list[NDArray[np.int64]]:
    """Group pairs into batches of whole posts, given the row of the post, its tokens and its windows of each pair."""
    order = np.argsort(rows, kind="stable")
    _, firsts = np.unique(rows[order], return_index=True)
    own = np.split(order, firsts[1:])
    batches = pair_batches(lengths[order[firsts]], counts[order[firsts]], windows)
    return [np.concatenate([own[post] for post in batch]) for batch in batches]
