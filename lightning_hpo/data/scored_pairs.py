"""Pairs to score or to answer, in batches of whole pairs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from lightning_hpo.data.batching import pair_batches
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.scored_pair import ScoredPair
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.train_windows import Labels
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
        pairs: Sequence[ScoredPair],
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
        lengths = [
            [stop - first + len(criteria[scored.pair.criterion]) for first, stop in scored.ranges] for scored in pairs
        ]
        self._batches = pair_batches(lengths, batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scored = [self._pairs[place] for place in self._batches[index]]
        windows = [
            self._windows.compose(self._criteria[one.pair.criterion], self._posts[one.pair.post_id].part(*window))
            for one in scored
            for window in one.ranges
        ]
        batch: dict[str, Any] = {
            **self._windows.collate(windows),
            "pair_index": torch.tensor([place for place, one in enumerate(scored) for _ in one.ranges]),
            "post_ids": [one.pair.post_id for one in scored],
            "criteria": [one.pair.criterion for one in scored],
        }
        if self._offsets:
            batch["offsets"] = self._windows.offsets(windows)
        if self._labels:
            targets = [target for one in scored for target in one.targets]
            batch |= self._labels(targets, [window.post_start for window in windows])
        if self._pair_keys:
            batch |= self._pair_keys([one.pair for one in scored])
        return batch
