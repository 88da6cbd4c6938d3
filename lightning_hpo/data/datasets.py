"""PyTorch datasets of ready batches: for training, and for evaluation and prediction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_hpo.data.augmentation import Augmentation, Augmenter
from lightning_hpo.data.batching import Draw, pair_batches
from lightning_hpo.data.labels import WindowTarget, window_targets
from lightning_hpo.data.pairs import Pair, PairTable
from lightning_hpo.data.posts import Texts, TokenizedPosts
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.train_samples import TrainWindow
from lightning_hpo.data.windows import Window, Windows

__all__ = ["EvalDataset", "Labels", "PairKeys", "Samples", "TrainDataset", "fitting"]

PairKeys = Callable[[Sequence[Pair]], dict[str, Any]]

# A change of letters may not fit into the window any more, or not reach the tokens; another one then does.
_ATTEMPTS = 4

Labels = Callable[[Sequence[WindowTarget], Sequence[int]], dict[str, Tensor]]


class Samples(Protocol):
    """Windows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> TrainWindow: ...


class TrainDataset(Dataset[dict[str, Tensor]]):
    """Makes a batch from a list of draws.

    A sample depends on the seed, its epoch and its index alone, so it is the same whichever process makes it.

    Args:
        samples: The windows to draw from.
        texts: Text of each post, by its row.
        posts: The posts as tokens.
        criteria: The criteria as tokens, by id.
        windows: Composes and collates.
        labels: Turns targets into an agent's label tensors.
        augmentation: How samples are changed.
        seed: The data's seed.

    Raises:
        InputError: What a method of the augmentation needs is not on this machine.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        texts: Texts,
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
        self._augmenter = Augmenter(augmentation)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, draws: list[Draw]) -> dict[str, Tensor]:
        """A batch.

        Beside the window's tensors and the labels it has `augmented` [windows], whether a window was changed, and
        `unaugmentable` [windows], whether it should have been and could not.
        """
        made = [self._sample(draw) for draw in draws]
        windows, targets, drawn, changed = (list(column) for column in zip(*made, strict=True))
        labels = self._labels(targets, [window.post_start for window in windows])
        augmented = torch.tensor(changed)
        unaugmentable = torch.tensor(drawn) & ~augmented
        return {**self._windows.collate(windows), **labels, "augmented": augmented, "unaugmentable": unaugmentable}

    def _sample(self, draw: Draw) -> tuple[Window, WindowTarget, bool, bool]:
        """A window, its target, whether it was to be augmented, and whether it was."""
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
        """Tokens and target of the changed text, or None where nothing could be changed."""
        text = self._texts[sample.row]
        start, end = part.characters()
        # Byte-level tokenizers count the space before a word as the word's.
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
        """The part of a changed text that fits into the window; None where not all of the evidence does."""
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
    """Where a text is cut so that it fits with all of its evidence: first on the side that has more without any.

    Args:
        tokens: How many it has.
        room: How many fit, at least one.
        evidence: First and last token (inclusive) of each piece.

    Returns:
        The token range [first, stop), or None where the evidence does not fit, or there is no token.
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
    """Item i is batch i: all windows of some pairs.

    A batch has `input_ids`, `attention_mask`, perhaps `token_type_ids` [windows, tokens], `pair_index` [windows] (the
    pair of each window, from 0), `post_ids` and `criteria` (lists, one entry a pair), and what an agent adds.

    Args:
        pairs: The pairs.
        posts: The posts as tokens.
        criteria: The criteria as tokens, by id.
        windows: Composes and collates.
        batch_size: Windows in a batch, about.
        labels: An agent's label tensors, for pairs whose targets are known.
        pair_keys: What an agent wants to know of each pair.
        offsets: Whether batches hold `offsets` [windows, tokens, 2], characters in the post.
    """

    def __init__(
        self,
        pairs: PairTable,
        *,
        posts: TokenizedPosts,
        criteria: Mapping[str, TokenizedText],
        windows: Windows,
        batch_size: int,
        labels: Labels | None = None,
        pair_keys: PairKeys | None = None,
        offsets: bool = False,
    ) -> None:
        self._pairs, self._posts, self._criteria, self._windows = pairs, posts, criteria, windows
        self._labels, self._pair_keys, self._offsets = labels, pair_keys, offsets
        lengths = np.array([len(criterion) for criterion in criteria.values()])[pairs.columns]
        rooms = np.array([windows.room(criterion) for criterion in criteria.values()])[pairs.columns]
        tokens = posts.lengths[pairs.rows]
        self._batches = pair_batches(np.minimum(tokens, rooms) + lengths, windows.count(tokens, rooms), batch_size)

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
            "pair_index": torch.tensor([place for place, own in enumerate(ranges) for _ in own]),
            "post_ids": [pair.post_id for pair in pairs],
            "criteria": [pair.criterion for pair in pairs],
        }
        if self._offsets:
            made["offsets"] = self._windows.offsets(windows)
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
