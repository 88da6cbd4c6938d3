"""Calibration of the null threshold: the threshold between "no evidence" and an answer with the best score."""

import torch
from torch import Tensor

__all__ = ["best_threshold"]


def best_threshold(odds: Tensor, answered: Tensor, unanswered: Tensor) -> float:
    """Find the threshold with the highest mean score of pairs, as `find_best_thresh` of SQuAD 2.0 does.

    `find_best_thresh` returns the odds of a pair. This function returns the middle of the widest gap between the odds
    of two pairs that has the best score. So the decisions do not depend on how another process or device rounds. The
    time is O(P log P), for sorting.

    Args:
        odds: [P] log odds of "no evidence" against the best span; infinite if there is no span.
        answered: [P] score of the pair if its best span is the answer: if its odds are at most the threshold.
        unanswered: [P] score of the pair if the answer is "no evidence".

    Returns:
        The threshold; 0 if no pair has a span.
    """
    # On the CPU: Apple's GPUs have no float64.
    odds, answered, unanswered = odds.cpu(), answered.cpu(), unanswered.cpu()
    real = torch.isfinite(odds)
    odds, order = odds[real].double().sort()
    if not len(odds):
        return 0.0
    gains = (answered - unanswered)[real].double()[order]
    # Cut k lies between the pairs k - 1 and k: the first k pairs get a span as their answer.
    total = torch.cat((gains.new_zeros(1), gains.cumsum(0)))
    bounds = torch.cat((odds[:1] - 2, odds, odds[-1:] + 2))
    gaps = bounds[1:] - bounds[:-1]
    best = total[gaps > 0].max()
    # Sums of the same gains in another order differ by rounding only.
    cut = int(gaps.where((gaps > 0) & (total >= best - 1e-9), 0.0).argmax())
    return float(bounds[cut : cut + 2].mean())
