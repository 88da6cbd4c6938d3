"""Data of the criteria agent, which decides whether a post meets a criterion."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from lightning_hpo.data.labels import WindowTarget, criteria_labels
from lightning_hpo.data.one_pass_windows import Form
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.data.pairs import Pair
from lightning_hpo.flag_types import Bounds

__all__ = ["CriteriaDataModule"]


class CriteriaDataModule(PairDataModule):
    """Every post with every criterion. A pair without annotation is labelled as not met.

    Args:
        form: How a post and a criterion are read. On the command line, it is set to --model.form.
        negative_ratio: Number of windows of unannotated pairs, redrawn each epoch, for each window with evidence. In
            the one-pass form: number of windows of posts without evidence for any criterion.
        kwargs: The other arguments of `PairDataModule`.
    """

    LABELS = frozenset({"labels"})

    def __init__(
        self, *, form: Form = "pairs", negative_ratio: Annotated[float, Bounds(0)] = 4.0, **kwargs: Any
    ) -> None:
        super().__init__(negative_ratio=negative_ratio, **kwargs)
        self.form = form

    @staticmethod
    def labels(targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
        """Return `labels` [windows]."""
        return criteria_labels(targets, post_starts)

    @staticmethod
    def pair_keys(pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return `met` [pairs]: 1 if the post meets the criterion."""
        return {"met": torch.tensor([int(pair.met) for pair in pairs])}
