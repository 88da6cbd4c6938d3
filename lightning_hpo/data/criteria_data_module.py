"""Data of the criteria agent: does this post meet this criterion?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_hpo.data.labels import WindowTarget, criteria_labels
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.data.pairs import Pair, PairTable

__all__ = ["CriteriaDataModule"]


class CriteriaDataModule(PairDataModule):
    """Every post with every criterion; a pair that nobody annotated is not met.

    Args:
        negative_ratio: Windows of pairs that nobody annotated, drawn anew each epoch, for each window with evidence.
        kwargs: The other arguments of every pair data module.
    """

    def __init__(self, *, negative_ratio: float = 4.0, **kwargs: Any) -> None:
        super().__init__(negative_ratio=negative_ratio, **kwargs)

    def scored_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """Every post with every criterion."""
        return self.corpus.pairs_of(post_ids)

    def training_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """Every post with every criterion."""
        return self.corpus.pairs_of(post_ids)

    def labels(self, targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
        """`labels` [windows]."""
        return criteria_labels(targets, post_starts)

    def pair_keys(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """`met` [pairs]: 1 where the post meets the criterion."""
        return {"met": torch.tensor([int(pair.met) for pair in pairs])}
