"""Character-overlap F1 of evidence spans, with "no evidence" counted as in SQuAD 2.0."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Span", "SpanF1", "span_f1"]

Span = tuple[int, int]


def span_f1(predicted: Span | None, gold: Sequence[Span]) -> float:
    """Score one answer.

    Args:
        predicted: Characters [start, end), or None for "no evidence".
        gold: The spans that are right, of which the nearest counts; empty for "no evidence".

    Returns:
        Twice the shared characters over the characters of both; with "no evidence" on a side 1 if the other side
        says the same, else 0.
    """
    if predicted is None or not gold:
        return float(predicted is None and not gold)
    return max(_overlap_f1(predicted, span) for span in gold)


def _overlap_f1(one: Span, other: Span) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    total = one[1] - one[0] + other[1] - other[0]
    return 2 * shared / total if total else 0.0


class SpanF1(Metric):
    """Mean of `span_f1` over pairs."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Sequence[Span | None], gold: Sequence[Sequence[Span]]) -> None:
        """Add one answer, and what would be right, for each pair."""
        self.total += sum(span_f1(answer, spans) for answer, spans in zip(predicted, gold, strict=True))
        self.count += len(gold)

    def compute(self) -> Tensor:
        """Give the mean; 0 if there was no pair."""
        return self.total / self.count.clamp(min=1)
