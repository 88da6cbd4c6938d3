"""Ranking and classification metrics of pairs, over all pairs and for each criterion."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_f1_score,
    binary_matthews_corrcoef,
)
from torchmetrics.utilities import dim_zero_cat

from lightning_hpo.agents.pair_decoding import THRESHOLD

__all__ = ["PairScores"]

# Characters that MLflow does not accept in the name of a metric.
_NO_NAME = re.compile(r"[^\w.-]")


class PairScores(Metric):
    """Metrics of (post, criterion) pairs that need all pairs of a split at once.

    `auroc`, `average_precision` and `mcc` are over all pairs. `f1_CRITERION` is over the pairs of one criterion, and
    `criteria_f1` is the mean of these. A score over pairs of one class only is NaN, and `criteria_f1` skips it.
    (torchmetrics returns 0 for this AUROC, and a number for this MCC.) The MCC of constant answers is 0 (Chicco and
    Jurman 2020).
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    probabilities: list[Tensor]
    met: list[Tensor]
    criteria: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("probabilities", "met", "criteria"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._names: dict[int, str] = {}

    def update(self, probabilities: Tensor, met: Tensor, criteria: Sequence[str]) -> None:
        """Add pairs.

        Args:
            probabilities: [P] P(met) of each pair.
            met: [P] 1 if the post meets the criterion, else 0.
            criteria: P ids: the criterion of each pair.
        """
        keys = [_key(criterion) for criterion in criteria]
        self._names |= dict(zip(keys, criteria, strict=True))
        self.probabilities.append(probabilities)
        self.met.append(met)
        self.criteria.append(torch.tensor(keys, device=met.device))

    def compute(self) -> dict[str, Tensor]:
        """Return each score by its name."""
        probabilities, met = dim_zero_cat(self.probabilities), dim_zero_cat(self.met)
        keys = dim_zero_cat(self.criteria)
        by_criterion = {
            f"f1_{_NO_NAME.sub('_', name)}": _f1(probabilities[keys == key], met[keys == key])
            for key, name in self._names.items()
            if (keys == key).any()
        }
        values = torch.stack(list(by_criterion.values()))
        return {**_over_all(probabilities, met), "criteria_f1": values.nanmean(), **by_criterion}


def _key(criterion: str) -> int:
    """Return a number for an id, the same on every device, since devices gather tensors only."""
    return int.from_bytes(hashlib.blake2b(criterion.encode(), digest_size=8).digest(), signed=True)


def _over_all(probabilities: Tensor, met: Tensor) -> dict[str, Tensor]:
    if _one_class(met):
        return dict.fromkeys(("auroc", "average_precision", "mcc"), probabilities.new_tensor(torch.nan))
    answers = _answers(probabilities)
    return {
        "auroc": binary_auroc(probabilities, met),
        "average_precision": binary_average_precision(probabilities, met),
        # torchmetrics 1.9 returns up to 0.7 for constant answers if the classes are unbalanced.
        "mcc": torch.zeros((), device=met.device) if _one_class(answers) else binary_matthews_corrcoef(answers, met),
    }


def _f1(probabilities: Tensor, met: Tensor) -> Tensor:
    return probabilities.new_tensor(torch.nan) if _one_class(met) else binary_f1_score(_answers(probabilities), met)


def _answers(probabilities: Tensor) -> Tensor:
    """Apply the threshold of the agent. torchmetrics itself classifies exactly 0.5 as not met."""
    return (probabilities >= THRESHOLD).long()


def _one_class(met: Tensor) -> bool:
    return bool((met == met[0]).all())
