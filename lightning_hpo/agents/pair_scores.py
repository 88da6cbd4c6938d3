"""Metrics of the criteria agent over the pairs of a split, over all pairs and for each criterion."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
    binary_matthews_corrcoef,
    binary_precision,
    binary_recall,
    multiclass_f1_score,
)
from torchmetrics.utilities import dim_zero_cat

from lightning_hpo.agents.calibration import ThresholdPolicy, fit_decision, folds
from lightning_hpo.agents.evaluation import PairMetric
from lightning_hpo.agents.pair_decoding import MetDecision
from lightning_hpo.agents.post_scores import PostScores, text_keys

__all__ = ["PairScores", "macro_f1"]

# Characters that MLflow does not accept in the name of a metric.
_NO_NAME = re.compile(r"[^\w.-]")
_BINS = 15


class PairScores(PairMetric):
    """Metric that stores the log odds of each pair, and applies the decision in `compute`.

    With a fitted threshold, the pairs of each fold of posts are scored with the temperature and the threshold that the
    other folds gave, so no label is used for its own score.

    Args:
        policy: How the threshold is chosen.
        kwargs: Arguments of `torchmetrics.Metric`.

    Attributes:
        decision: Decision for all pairs; None for cross-fitted ones. It can be set until `compute`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    log_odds: list[Tensor]
    met: list[Tensor]
    criteria: list[Tensor]

    def __init__(self, policy: ThresholdPolicy = "fixed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy, self.decision = policy, None if policy != "fixed" else MetDecision()
        for name in ("log_odds", "met", "criteria"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._names: dict[int, str] = {}

    def update(self, log_odds: Tensor, met: Tensor, criteria: Sequence[str], posts: Sequence[str]) -> None:
        """Add pairs.

        Args:
            log_odds: [P] log odds of "met" of each pair.
            met: [P] 1 if the post meets the criterion, else 0.
            criteria: P ids: the criterion of each pair.
            posts: P ids: the post of each pair.
        """
        keys = text_keys(criteria)
        self._names |= dict(zip(keys, criteria, strict=True))
        self.log_odds.append(log_odds)
        self.met.append(met)
        self.criteria.append(torch.tensor(keys, device=met.device))
        self.add_keys(posts, criteria, met.device)

    def pair_log_odds(self) -> Tensor:
        """Return the log odds of all pairs so far."""
        return dim_zero_cat(self.log_odds)

    def fit(self) -> MetDecision:
        """Fit the decision to all pairs, including those of other devices."""
        with self.sync_context():
            return self._fit(*self._columns()[:3])

    def compute(self) -> dict[str, Tensor]:
        """Return the scores. A score over pairs of one class only is NaN.

        Returns:
            `metric`: Mean of the F1 of "met" and of "not met".
            `metric_fixed`: The same at a probability of .5; only if the policy is another one.
            `f1`, `precision`, `recall`, `mcc`, `positive`: F1, precision and recall of "met", MCC, and the share of
                pairs with this answer. The MCC of constant answers is 0 (Chicco and Jurman 2020).
            `auroc`, `average_precision`: Over the log odds, whatever the threshold.
            `ece`: Expected calibration error of the probabilities (Guo et al. 2017), over 15 bins.
            `f1_CRITERION`, `criteria_f1`: F1 over the pairs of one criterion, and the mean of these without NaN.
        """
        log_odds, met, criteria, posts = self._columns()
        probabilities, answers = self._decide(log_odds, met, criteria, posts)
        self.post_scores = PostScores.of_labels(posts, answers, met)
        by_criterion = {
            f"f1_{_NO_NAME.sub('_', name)}": _f1(answers[criteria == key], met[criteria == key])
            for key, name in self._names.items()
            if (criteria == key).any()
        }
        fixed = {} if self.policy == "fixed" else {"metric_fixed": macro_f1((log_odds >= 0).long(), met)}
        return {
            "metric": _nan_unless_finite(log_odds, macro_f1(answers, met)),
            **fixed,
            "f1": binary_f1_score(answers, met),
            "precision": binary_precision(answers, met),
            "recall": binary_recall(answers, met),
            "positive": answers.float().mean(),
            **_over_all(log_odds, answers, met),
            "ece": binary_calibration_error(probabilities.float(), met, n_bins=_BINS),
            "criteria_f1": torch.stack(list(by_criterion.values())).nanmean(),
            **by_criterion,
        }

    def _columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return all states on the CPU: the fits need float64, which Apple's GPUs do not have."""
        log_odds, met, criteria, posts = (
            dim_zero_cat(state).cpu() for state in (self.log_odds, self.met, self.criteria, self.posts)
        )
        return log_odds, met, criteria, posts

    def _fit(self, log_odds: Tensor, met: Tensor, criteria: Tensor) -> MetDecision:
        return fit_decision(self.policy, log_odds, met, criteria.tolist(), self._names)

    def _decide(self, log_odds: Tensor, met: Tensor, criteria: Tensor, posts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability and the answer (1 for "met") of each pair."""
        probabilities, answers = torch.zeros_like(log_odds, dtype=torch.float64), torch.zeros_like(met)
        for own in [torch.ones_like(posts, dtype=torch.bool)] if self.decision else folds(posts):
            decision = self.decision or self._fit(log_odds[~own], met[~own], criteria[~own])
            probabilities[own] = decision.probabilities(log_odds[own])
            # On another device than that of these pairs, the name of a criterion is not known.
            thresholds = decision.thresholds([self._names.get(key, "") for key in criteria[own].tolist()])
            answers[own] = (probabilities[own] >= thresholds).to(answers.dtype)
        return probabilities, answers


def macro_f1(answers: Tensor, met: Tensor) -> Tensor:
    """Return the mean of the F1 of "met" (1) and of "not met" (0), [P] each."""
    return multiclass_f1_score(answers, met, num_classes=2, average="macro")


def _over_all(log_odds: Tensor, answers: Tensor, met: Tensor) -> dict[str, Tensor]:
    if _one_class(met):
        # torchmetrics returns 0 for this AUROC, and a number for this MCC.
        return dict.fromkeys(("auroc", "average_precision", "mcc"), log_odds.new_tensor(torch.nan))
    ranks = log_odds.double().sigmoid()  # torchmetrics would round log odds in float32
    return {
        "auroc": binary_auroc(ranks, met).float(),
        "average_precision": binary_average_precision(ranks, met).float(),
        # torchmetrics 1.9 returns up to 0.7 for constant answers if the classes are unbalanced.
        "mcc": torch.zeros(()) if _one_class(answers) else binary_matthews_corrcoef(answers, met),
    }


def _f1(answers: Tensor, met: Tensor) -> Tensor:
    return torch.tensor(torch.nan) if _one_class(met) else binary_f1_score(answers, met)


def _nan_unless_finite(log_odds: Tensor, value: Tensor) -> Tensor:
    return value if bool(log_odds.isfinite().all()) else value.new_tensor(torch.nan)


def _one_class(met: Tensor) -> bool:
    return bool((met == met[0]).all())
