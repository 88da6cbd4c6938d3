"""Whole pairs: the logits of all their windows, and the criteria agent's prediction for a pair."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_hpo.exceptions import NotFiniteError

__all__ = ["MetDecision", "batch_logits", "met_and_span_logits", "met_rows", "pair_log_odds", "window_logits"]

_WINDOW_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_CRITERION_INPUTS = ("criterion_ids", "criterion_mask", "criterion_types")


@dataclass(frozen=True)
class MetDecision:
    """How the log odds of a pair become a probability and an answer.

    Args:
        temperature: Divisor of the log odds (Guo et al. 2017).
        threshold: Lowest probability at which a criterion is met.
        by_criterion: Threshold of each criterion that has its own.
    """

    temperature: float = 1.0
    threshold: float = 0.5
    by_criterion: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_log_odds(cls, temperature: float, threshold: float, by_criterion: Mapping[str, float]) -> "MetDecision":
        """Return the decision whose thresholds are given as log odds before the division by the temperature."""
        own = {name: _sigmoid(value / temperature) for name, value in by_criterion.items()}
        return cls(temperature, _sigmoid(threshold / temperature), own)

    def probabilities(self, log_odds: Tensor) -> Tensor:
        """Return P(met) [P] in float64, on the CPU: Apple's GPUs have no float64."""
        return (log_odds.cpu().double() / self.temperature).sigmoid()

    def thresholds(self, criteria: Sequence[str]) -> Tensor:
        """Return the threshold [P] of each pair, given the ids of their criteria."""
        return torch.tensor([self.by_criterion.get(name, self.threshold) for name in criteria], dtype=torch.float64)


def batch_logits(network: Callable[..., Tensor], batch: Mapping[str, Any], at_once: int) -> Tensor:
    """Return the logits [R, ...] of R rows in float32: a window each, or a window and a criterion of a one-pass batch.

    Args:
        network: The network of the batch's form.
        batch: Inputs of `Windows` or of `OnePassWindows`.
        at_once: Maximum number of windows that the network reads at a time.
    """
    windows, criteria = (
        [batch[name] for name in names if name in batch] for names in (_WINDOW_INPUTS, _CRITERION_INPUTS)
    )
    if not criteria:
        return window_logits(network, windows, at_once)

    def read(*part: Tensor) -> Tensor:
        return network(*part[:2], *criteria[:2], *part[2:], *criteria[2:])

    return window_logits(read, windows, at_once)[batch["row_windows"], batch["row_criteria"]]


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


def met_and_span_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits [R, 2] of "not met" and "met", and those of starts and ends [R, T, 2], of a `JointHead`.

    Args:
        logits: [R, 1 + T, 2] both, for a window and a criterion in each row.
    """
    return logits[:, 0], logits[:, 1:]


def pair_log_odds(logits: Tensor, pair_index: Tensor, pairs: int) -> Tensor:
    """Return the log odds [P] of "met" of each pair: the maximum over its windows.

    Args:
        logits: [W, 2] logits of each window.
        pair_index: [W] index of the pair of each window.
        pairs: Number of pairs, P.
    """
    log_odds = logits[:, 1] - logits[:, 0]
    return log_odds.new_full((pairs,), -math.inf).scatter_reduce(0, pair_index, log_odds, "amax")


def met_rows(log_odds: Tensor, criteria: Sequence[str], decision: MetDecision) -> list[dict[str, Any]]:
    """Return the answer to each pair as plain values.

    Args:
        log_odds: [P] log odds of each pair.
        criteria: Id of the criterion of each pair.
        decision: Temperature and thresholds.

    Returns:
        A row for each pair: `met`, `probability` and `threshold`, the lowest probability at which it is met.

    Raises:
        NotFiniteError: If log odds are NaN or infinite.
    """
    if not bool(log_odds.isfinite().all()):
        raise NotFiniteError(
            "the logits are NaN or infinite, so the model has no answer; train with a lower --model.optim.lr"
        )
    values = (decision.probabilities(log_odds).tolist(), decision.thresholds(criteria).tolist())
    return [
        {"met": probability >= threshold, "probability": probability, "threshold": threshold}
        for probability, threshold in zip(*values, strict=True)
    ]


def _sigmoid(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float64).sigmoid())
