"""From the logits of windows to the probability of a pair."""

from torch import Tensor

__all__ = ["pair_probabilities"]


def pair_probabilities(logits: Tensor, pair_index: Tensor, pairs: int) -> Tensor:
    """Give P(met) [P] of each pair, the highest over its windows.

    Args:
        logits: [W, 2] of each window.
        pair_index: [W] the pair of each window.
        pairs: How many pairs there are, P.
    """
    met = logits.softmax(dim=-1)[:, 1]
    return met.new_zeros(pairs).scatter_reduce(0, pair_index, met, "amax")
