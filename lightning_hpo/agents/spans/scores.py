"""Metrics of the evidence agent over the pairs of a split."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_hpo.agents.calibration import best_null_threshold, folds
from lightning_hpo.agents.evaluation import PairMetric
from lightning_hpo.agents.post_scores import PostScores
from lightning_hpo.agents.spans.decoding import PairSpans
from lightning_hpo.agents.spans.metrics import Span, partial_matches, sentence_f1, span_exact, span_f1

__all__ = ["SpanScores"]


class SpanScores(PairMetric):
    """Metric that stores the scores of each pair with and without an answer, and applies the threshold in `compute`.

    With the null policy calibrated, the pairs of each fold of posts are scored with the threshold that the other folds
    gave, so no label is used for its own score.

    Args:
        threshold: Maximum log odds of "no evidence" at which a span is an answer; None to cross-fit it. The attribute
            can be changed until `compute`.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False

    odds: list[Tensor]
    first: list[Tensor]
    precision: list[Tensor]
    recall: list[Tensor]
    by_sentence: list[Tensor]

    def __init__(self, threshold: float | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        for name in ("odds", "first", "precision", "recall", "by_sentence"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        spans: PairSpans,
        gold: Sequence[Sequence[Span]],
        posts: Sequence[str],
        criteria: Sequence[str],
        texts: Sequence[str] | None = None,
    ) -> None:
        """Add pairs.

        Args:
            spans: Their best spans.
            gold: The correct spans of each; empty for "no evidence".
            posts: The id of the post of each.
            criteria: The id of its criterion.
            texts: The text of its post, for the score by sentences; None if it is not known.
        """
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
        if texts is not None:
            best = [rows[0] for rows in answers]
            self.by_sentence.append(torch.tensor(sentence_f1(best, gold, texts), device=device))
        self.add_keys(posts, criteria, device)

    def pair_log_odds(self) -> Tensor:
        """Return the log odds of the best span against "no evidence" of all pairs so far."""
        return -dim_zero_cat(self.odds)[:, 0]

    def best_threshold(self) -> float:
        """Find the threshold with the highest `metric` over all pairs, including those of other devices."""
        with self.sync_context():
            return _best(dim_zero_cat(self.odds).cpu()[:, 0], dim_zero_cat(self.first).cpu())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores at the threshold.

        Returns:
            `metric`, `exact`: F1 and exact match of the first answer, with "no evidence" counted as in SQuAD 2.0.
            `f1_answerable`, `f1_null`: The same F1 over the pairs with and without evidence; 0 if there are none.
            `f1_sentence`: F1 of the first answer in sentences instead of characters: of those that the answer and the
                evidence touch. Only if the texts are known.
            `answer_precision`: Mean share of the first answer's characters that one correct span covers, over the pairs
                with an answer; 0 without any.
            `all_precision`, `all_recall`, `all_f1`: Partial match of all answers with all evidence, as in MultiSpanQA.
            `null_accuracy`: Accuracy of the decision whether a pair has evidence.
            `positive`, `whole`: Shares of pairs with an answer, and with a whole window as the answer.
        """
        # On the CPU: Apple's GPUs have no float64.
        odds, first, precision, recall, posts = (
            dim_zero_cat(state).cpu() for state in (self.odds, self.first, self.precision, self.recall, self.posts)
        )
        f1, exact, gold, whole = first.unbind(dim=1)
        answers = (odds <= self._thresholds(odds, first, posts).unsqueeze(1)).sum(dim=1)
        answered, nothing = answers > 0, gold == 0
        right_null = (~answered & nothing).float()
        # A pair whose logits are not finite has no answer. Its score is NaN.
        f1 = f1.where(answered, right_null).masked_fill(odds[:, 0].isnan(), float("nan"))
        self.post_scores = PostScores.of_means(posts, f1)
        last = (answers - 1).clamp(min=0).unsqueeze(1)
        of_answers = _mean(precision[:, 0], answered)
        precise = precision.cumsum(1).gather(1, last).squeeze(1).where(answered, right_null).sum()
        recalled = recall.gather(1, last).squeeze(1).where(answered, right_null).sum()
        precise, recalled = precise / answers.clamp(min=1).sum(), recalled / gold.clamp(min=1).sum()
        by_sentence = dim_zero_cat(self.by_sentence).cpu() if len(self.by_sentence) else None
        return {
            "metric": f1.mean(),
            "exact": exact.where(answered, right_null).mean(),
            "f1_answerable": _mean(f1, ~nothing),
            "f1_null": _mean(f1, nothing),
            **({} if by_sentence is None else {"f1_sentence": by_sentence.where(answered, right_null).mean()}),
            "answer_precision": of_answers,
            "all_precision": precise,
            "all_recall": recalled,
            "all_f1": 2 * precise * recalled / (precise + recalled).clamp(min=1e-12),
            "null_accuracy": (answered != nothing).float().mean(),
            "positive": answered.float().mean(),
            "whole": (answered & whole.bool()).float().mean(),
        }

    def _thresholds(self, odds: Tensor, first: Tensor, posts: Tensor) -> Tensor:
        """Return the threshold of each pair in float64: as precise as where one is fitted."""
        thresholds = torch.full_like(odds[:, 0], 0.0 if self.threshold is None else self.threshold, dtype=torch.float64)
        for own in folds(posts) if self.threshold is None else []:
            thresholds[own] = _best(odds[~own, 0], first[~own])
        return thresholds


def _best(odds: Tensor, first: Tensor) -> float:
    return best_null_threshold(odds, first[:, 0], (first[:, 2] == 0).float())


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return values[counted].sum() / counted.sum().clamp(min=1)
