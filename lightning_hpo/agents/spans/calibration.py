"""Which threshold between "no evidence" and an answer gives the best score."""

import torch
from torch import Tensor

__all__ = ["best_threshold"]


def best_threshold(odds: Tensor, answered: Tensor, unanswered: Tensor) -> float:
    """Find the threshold under which the mean score of pairs is highest, as SQuAD 2.0's `find_best_thresh` does.

    Where that takes the odds of a pair themselves, this takes the middle of the widest gap between two pairs' odds
    that gives the best score: the next process, or device, rounds a little differently and must not decide otherwise.
    Sorting is all that it costs, O(P log P).

    Args:
        odds: [P] log odds of "no evidence" against the best span; infinite where there is no span.
        answered: [P] score of a pair that is answered with its best span, as it is where its odds are at the
            threshold or below.
        unanswered: [P] score of a pair that is answered with "no evidence".

    Returns:
        The threshold; 0 where there is no pair with a span.
    """
    real = torch.isfinite(odds)
    odds, order = odds[real].double().sort()
    if not len(odds):
        return 0.0
    gains = (answered - unanswered)[real].double()[order]
    # Cut k is between the pairs k - 1 and k: it answers the first k of them.
    total = torch.cat((gains.new_zeros(1), gains.cumsum(0)))
    bounds = torch.cat((odds[:1] - 2, odds, odds[-1:] + 2))
    gaps = bounds[1:] - bounds[:-1]
    best = total[gaps > 0].max()
    # Sums of the same gains in another order are equal but for their rounding.
    cut = int(gaps.where((gaps > 0) & (total >= best - 1e-9), 0.0).argmax())
    return float(bounds[cut : cut + 2].mean())
