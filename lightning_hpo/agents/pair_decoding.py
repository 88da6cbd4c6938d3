"""Pair decoding: from the logits of windows to the criteria agent's prediction for a pair."""

from typing import Any

from torch import Tensor

__all__ = ["THRESHOLD", "met_rows", "pair_probabilities"]

THRESHOLD = 0.5
"""Lowest probability at which a criterion is met, during training and evaluation."""


def pair_probabilities(logits: Tensor, pair_index: Tensor, pairs: int) -> Tensor:
    """Return P(met) [P] of each pair: the maximum over its windows.

    Args:
        logits: [W, 2] logits of each window.
        pair_index: [W] index of the pair of each window.
        pairs: Number of pairs, P.
    """
    met = logits.softmax(dim=-1)[:, 1]
    return met.new_zeros(pairs).scatter_reduce(0, pair_index, met, "amax")


def met_rows(probabilities: Tensor, threshold: float = THRESHOLD) -> list[dict[str, Any]]:
    """Return the answer to each pair as plain values.

    Args:
        probabilities: [P] P(met) of each pair.
        threshold: Lowest probability at which a criterion is met.

    Returns:
        A row for each pair: `met` and `probability`.
    """
    return [{"met": value >= threshold, "probability": value} for value in probabilities.tolist()]
