"""Data of the joint agent, which decides whether a post meets a criterion and finds the evidence."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from torch import Tensor

from lightning_hpo.data.criteria_data_module import CriteriaDataModule
from lightning_hpo.data.evidence_data_module import EvidenceDataModule
from lightning_hpo.data.labels import WindowTarget
from lightning_hpo.data.one_pass_windows import Form
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.data.pairs import Pair
from lightning_hpo.flag_types import Bounds

__all__ = ["JointDataModule"]


class JointDataModule(PairDataModule):
    """Every post with every criterion, each post read once.

    A pair without annotation is labelled as not met, and has no evidence. A pair that is met by evidence not found in
    the post has a label, but no evidence to learn from or to be scored on.

    Args:
        negative_ratio: Number of windows of posts without evidence for any criterion, redrawn each epoch, for each
            window with evidence.
        kwargs: The other arguments of `PairDataModule`.
    """

    needs_offsets: ClassVar[bool] = True
    unusable: ClassVar[str] = "without evidence to learn from"
    form: Form = "one_pass"
    LABELS = CriteriaDataModule.LABELS | EvidenceDataModule.LABELS

    def __init__(self, *, negative_ratio: Annotated[float, Bounds(0)] = 4.0, **kwargs: Any) -> None:
        super().__init__(negative_ratio=negative_ratio, **kwargs)

    def is_usable(self, pair: Pair) -> bool:
        """Return whether a pair is not met, or its evidence was found."""
        return _is_known(pair)

    @staticmethod
    def labels(targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
        """Return `labels` [windows], and `start_positions` and `end_positions` [windows, pieces]."""
        return {**CriteriaDataModule.labels(targets, post_starts), **EvidenceDataModule.labels(targets, post_starts)}

    @staticmethod
    def pair_keys(pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return the keys of both other data modules, and `evidence_known`: whether the evidence was found."""
        both = {**CriteriaDataModule.pair_keys(pairs), **EvidenceDataModule.pair_keys(pairs)}
        return {**both, "evidence_known": [_is_known(pair) for pair in pairs]}


def _is_known(pair: Pair) -> bool:
    return bool(pair.spans) or not pair.met
