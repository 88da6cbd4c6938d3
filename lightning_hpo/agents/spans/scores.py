"""Metrics of the evidence agent over the pairs of a split."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_hpo.agents.spans.calibration import best_threshold
from lightning_hpo.agents.spans.decoding import PairSpans
from lightning_hpo.agents.spans.metrics import Span, partial_matches, span_exact, span_f1

__all__ = ["SpanScores"]


class SpanScores(Metric):
    """Metric that stores the scores of each pair with and without an answer, and applies the threshold in `compute`.

    So the threshold of the null policy can depend on the pairs.

    Args:
        threshold: Maximum log odds of "no evidence" at which a span is an answer. The attribute can be changed until
            `compute`.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False

    odds: list[Tensor]
    first: list[Tensor]
    precision: list[Tensor]
    recall: list[Tensor]

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        for name in ("odds", "first", "precision", "recall"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, spans: PairSpans, gold: Sequence[Sequence[Span]]) -> None:
        """Add the best spans of pairs, and the correct spans of each (empty for "no evidence")."""
        found = torch.stack((spans.start, spans.end), dim=-1).tolist()
        answers = [[(start, end) for start, end in rows] for rows in found]
        first = [
            (span_f1(rows[0], right), span_exact(rows[0], right), float(len(right)))
            for rows, right in zip(answers, gold, strict=True)
        ]
        precision, recall = zip(*map(partial_matches, answers, gold), strict=True)
        device = spans.score.device
        self.odds.append(-spans.score)
        self.first.append(torch.cat((torch.tensor(first, device=device), spans.whole[:, :1].float()), dim=1))
        self.precision.append(torch.tensor(precision, device=device))
        self.recall.append(torch.tensor(recall, device=device))

    def best_threshold(self) -> float:
        """Find the threshold with the highest `metric` over all pairs, including those of other devices."""
        with self.sync_context():
            odds, first = dim_zero_cat(self.odds)[:, 0], dim_zero_cat(self.first)
        return best_threshold(odds, first[:, 0], (first[:, 2] == 0).float())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores at the threshold.

        Returns:
            `metric`, `exact`: F1 and exact match of the first answer, with "no evidence" counted as in SQuAD 2.0.
            `f1_answerable`, `f1_null`: The same F1 over the pairs with and without evidence; 0 if there are none.
            `all_precision`, `all_recall`, `all_f1`: Partial match of all answers with all evidence, as in MultiSpanQA.
            `null_accuracy`: Accuracy of the decision whether a pair has evidence.
            `positive`, `whole`: Shares of pairs with an answer, and with a whole window as the answer.
        """
        odds, precision, recall = (dim_zero_cat(state) for state in (self.odds, self.precision, self.recall))
        f1, exact, gold, whole = dim_zero_cat(self.first).unbind(dim=1)
        answers = (odds <= self.threshold).sum(dim=1)
        answered, nothing = answers > 0, gold == 0
        right_null = (~answered & nothing).float()
        # A pair whose logits are not finite has no answer. Its score is NaN.
        f1 = f1.where(answered, right_null).masked_fill(odds[:, 0].isnan(), float("nan"))
        last = (answers - 1).clamp(min=0).unsqueeze(1)
        precise = precision.cumsum(1).gather(1, last).squeeze(1).where(answered, right_null).sum()
        recalled = recall.gather(1, last).squeeze(1).where(answered, right_null).sum()
        precise, recalled = precise / answers.clamp(min=1).sum(), recalled / gold.clamp(min=1).sum()
        return {
            "metric": f1.mean(),
            "exact": exact.where(answered, right_null).mean(),
            "f1_answerable": _mean(f1, ~nothing),
            "f1_null": _mean(f1, nothing),
            "all_precision": precise,
            "all_recall": recalled,
            "all_f1": 2 * precise * recalled / (precise + recalled).clamp(min=1e-12),
            "null_accuracy": (answered != nothing).float().mean(),
            "positive": answered.float().mean(),
            "whole": (answered & whole.bool()).float().mean(),
        }


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return values[counted].sum() / counted.sum().clamp(min=1)
