"""Data of the evidence agent, which finds the evidence for a criterion in a post."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from lightning_hpo.data.labels import WindowTarget, evidence_labels
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.data.pairs import UNKNOWN, Pair, PairTable

__all__ = ["EvidenceDataModule"]


class EvidenceDataModule(PairDataModule):
    """Pairs with evidence and pairs without. The arguments are those of `PairDataModule`."""

    needs_offsets: ClassVar[bool] = True
    needs_negatives: ClassVar[bool] = False
    LABELS = frozenset({"start_positions", "end_positions"})

    def scored_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """Return every post with every criterion, except pairs that are met by evidence not found in the post.

        Most pairs have no evidence, as among the posts that a model will read. A study of version 0.1.0 (`split_rule`
        hash) keeps what it has scored: as many pairs without evidence as with it.
        """
        pairs = self._known(post_ids)
        return pairs if self.split_rule == "stratified" else self._balanced(pairs)

    def _balanced(self, pairs: PairTable) -> PairTable:
        sure, others = np.flatnonzero(pairs.places != UNKNOWN), np.flatnonzero(pairs.places == UNKNOWN)
        wanted = min(len(others), max(0, 2 * int(pairs.met.sum()) - len(sure)))
        chosen = np.random.default_rng([self.seed, len(others)]).choice(len(others), wanted, replace=False)
        return pairs.take(np.concatenate([sure, others[np.sort(chosen)]]))

    def training_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """Return every post with every criterion, except pairs that are met by evidence not found in the post."""
        return self._known(post_ids)

    def is_usable(self, pair: Pair) -> bool:
        """Return whether a pair is not met, or its evidence was found."""
        return bool(pair.spans) or not pair.met

    @staticmethod
    def labels(targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
        """Return `start_positions` and `end_positions` [windows, pieces]."""
        return evidence_labels(targets, post_starts)

    @staticmethod
    def pair_keys(pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return `spans`: the evidence of each pair, as character ranges of the post."""
        return {"spans": [list(pair.spans) for pair in pairs]}

    def _known(self, post_ids: tuple[str, ...]) -> PairTable:
        pairs = self.corpus.pairs_of(post_ids)
        return pairs.take(~pairs.lost)
