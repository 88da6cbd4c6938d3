"""Calibration: the temperature and the thresholds that a model's answers get from labelled pairs.

What is fitted to some pairs scores too well on them. `folds` splits the pairs by post, so that each pair is scored with
what the other folds gave (cross-fitting).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_hpo.agents.pair_decoding import MetDecision

__all__ = ["ThresholdPolicy", "best_met_threshold", "best_null_threshold", "best_temperature", "fit_decision", "folds"]

ThresholdPolicy = Literal["fixed", "fitted", "per_criterion"]

_FOLDS = 5
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 0.05, 20.0
_SHRINKAGE = 20.0
"""Positive pairs at which a criterion's own threshold counts as much as the shared one."""
_LEAST_POSITIVES = 10


def folds(posts: Tensor) -> list[Tensor]:
    """Return masks [P] of the pairs of each fold. All pairs of a post are in one fold; folds have similar sizes.

    Args:
        posts: [P] key of the post of each pair (see `post_scores.text_keys`), whose order is random.
    """
    keys, places = torch.unique(posts, return_inverse=True)
    return [places % _FOLDS == fold for fold in range(min(_FOLDS, len(keys)))]


def best_null_threshold(odds: Tensor, answered: Tensor, unanswered: Tensor) -> float:
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
    real = torch.isfinite(odds)
    odds, order = odds[real].double().sort()
    if not len(odds):
        return 0.0
    gains = (answered - unanswered)[real].double()[order]
    # Cut k lies between the pairs k - 1 and k: the first k pairs get a span as their answer.
    return _middle_of_best_gap(odds, torch.cat((gains.new_zeros(1), gains.cumsum(0))))


def best_met_threshold(log_odds: Tensor, met: Tensor) -> float:
    """Find the threshold with the highest macro F1: the middle of the widest of the best gaps.

    Args:
        log_odds: [P] log odds of each pair.
        met: [P] whether the post meets the criterion.

    Returns:
        The lowest log odds at which a criterion is met; 0 if all pairs have the same label, which tell nothing.
    """
    if not len(met) or bool((met == met[0]).all()):
        return 0.0
    values, order = log_odds.double().sort()
    true = met[order].double()
    # Cut k: the first k pairs are answered "not met".
    misses = torch.cat((true.new_zeros(1), true.cumsum(0)))
    rejections = torch.arange(len(true) + 1, dtype=true.dtype) - misses
    hits, false_alarms = true.sum() - misses, (len(true) - true.sum()) - rejections
    wrong = misses + false_alarms
    return _middle_of_best_gap(values, hits / (2 * hits + wrong) + rejections / (2 * rejections + wrong))


def best_temperature(log_odds: Tensor, met: Tensor) -> float:
    """Find the temperature by which the log odds are divided for the highest likelihood (Guo et al. 2017).

    Args:
        log_odds: [P] log odds of each pair.
        met: [P] whether the post meets the criterion.

    Returns:
        The temperature, .05 to 20; 1 if all pairs have the same label.
    """
    if not len(met) or bool((met == met[0]).all()):
        return 1.0
    from scipy.optimize import brentq

    values, true = log_odds.double(), met.double()

    def slope(inverse: float) -> float:
        """Return the derivative of the negative log-likelihood by 1 / temperature, which rises with it."""
        return float((((values * inverse).sigmoid() - true) * values).sum())

    low, high = 1 / _MOST_TEMPERATURE, 1 / _LEAST_TEMPERATURE
    if slope(low) >= 0:  # the pairs are ranked no better than by chance
        return _MOST_TEMPERATURE
    if slope(high) <= 0:  # the labels are separated
        return _LEAST_TEMPERATURE
    return 1 / float(brentq(slope, low, high))


def fit_decision(
    policy: ThresholdPolicy, log_odds: Tensor, met: Tensor, criteria: Sequence[int], names: Mapping[int, str]
) -> MetDecision:
    """Fit the temperature and the thresholds of the criteria agent.

    The threshold of a criterion is drawn towards the shared one: n / (n + 20) of the way to its own best threshold,
    where n is its number of positive pairs. A criterion with fewer than ten has the shared one.

    Args:
        policy: How the threshold is chosen.
        log_odds: [P] log odds of each pair.
        met: [P] whether the post meets the criterion.
        criteria: [P] key of the criterion of each pair.
        names: Id of each criterion by its key.
    """
    if policy == "fixed":
        return MetDecision()
    temperature, shared = best_temperature(log_odds, met), best_met_threshold(log_odds, met)
    cuts: dict[str, float] = {}
    if policy == "per_criterion":
        keys = torch.tensor(criteria)
        for key, name in names.items():
            own = keys == key
            positives = int(met[own].sum())
            if positives >= _LEAST_POSITIVES:
                weight = positives / (positives + _SHRINKAGE)
                cuts[name] = shared + weight * (best_met_threshold(log_odds[own], met[own]) - shared)
    return MetDecision.of_log_odds(temperature, shared, cuts)


def _middle_of_best_gap(values: Tensor, scores: Tensor) -> float:
    """Return the middle of the widest gap with the best score.

    Args:
        values: [P] values in ascending order.
        scores: [P + 1] score of each cut; cut k lies before value k.
    """
    bounds = torch.cat((values[:1] - 2, values, values[-1:] + 2))
    gaps = bounds[1:] - bounds[:-1]
    best = scores[gaps > 0].max()
    # Sums of the same gains in another order differ by rounding only.
    cut = int(gaps.where((gaps > 0) & (scores >= best - 1e-9), 0.0).argmax())
    return float(bounds[cut : cut + 2].mean())
