"""Pairs to score or to answer, in batches of whole pairs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lightning_hpo.data.batching import pair_batches
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.pair_table import PairTable
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.train_windows import Labels
from lightning_hpo.data.window_labels import window_targets
from lightning_hpo.data.windows import TokenizedText, Windows

__all__ = ["PairKeys", "ScoredPairs"]

PairKeys = Callable[[Sequence[Pair]], dict[str, Any]]


class ScoredPairs(Dataset[dict[str, Any]]):
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
