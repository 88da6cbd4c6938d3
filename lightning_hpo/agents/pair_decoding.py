"""Whole pairs: the logits of all their windows, and the criteria agent's prediction for a pair."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["THRESHOLD", "met_rows", "pair_probabilities", "window_logits"]

THRESHOLD = 0.5
"""Lowest probability at which a criterion is met, during training and evaluation."""


def window_logits(network: Callable[..., Tensor], inputs: Sequence[Tensor], at_once: int) -> Tensor:
    """Return the logits [W, ...] of W windows in float32.

    The network runs on a limited number of windows at a time, since a long post may have thousands of windows, and all
    windows of a pair are in one batch.

    Args:
        network: Takes the inputs of windows, and returns their logits.
        inputs: Inputs of the network, each [W, T].
        at_once: Maximum number of windows that the network reads at a time.
    """
    # Positional arguments: the module of an exported program takes no names.
    parts = zip(*(torch.split(each, at_once) for each in inputs), strict=True)
    return torch.cat([network(*part).float() for part in parts])


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
