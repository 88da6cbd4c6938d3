"""How well probabilities rank and decide pairs: over all of them, and by criterion."""

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

# What MLflow takes in the name of a metric.
_NO_NAME = re.compile(r"[^\w.-]")


class PairScores(Metric):
    """Scores of (post, criterion) pairs that need all of a part at once.

    `auroc`, `average_precision` and `mcc` are over all pairs; `f1_CRITERION` is over those of a criterion, and
    `criteria_f1` the mean of these. Where all pairs are met, or none is, nothing can be told apart: such a score is
    NaN, and such a criterion is left out of the mean. (torchmetrics gives 0 for AUROC there, and a number for MCC.)
    The MCC of a constant answer is 0 (Chicco and Jurman 2020).
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
            probabilities: [P] P(met).
            met: [P] 1 where the post meets the criterion, else 0.
            criteria: Id of the criterion of each pair, P of them.
        """
        keys = [_key(criterion) for criterion in criteria]
        self._names |= dict(zip(keys, criteria, strict=True))
        self.probabilities.append(probabilities)
        self.met.append(met)
        self.criteria.append(torch.tensor(keys, device=met.device))

    def compute(self) -> dict[str, Tensor]:
        """Give each score by its name."""
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
    """A number for an id, the same on every device: devices gather tensors only."""
    return int.from_bytes(hashlib.blake2b(criterion.encode(), digest_size=8).digest(), signed=True)


def _over_all(probabilities: Tensor, met: Tensor) -> dict[str, Tensor]:
    if _one_class(met):
        return dict.fromkeys(("auroc", "average_precision", "mcc"), probabilities.new_tensor(torch.nan))
    return {
        "auroc": binary_auroc(probabilities, met),
        "average_precision": binary_average_precision(probabilities, met),
        "mcc": _mcc(_answers(probabilities), met),
    }


def _mcc(answers: Tensor, met: Tensor) -> Tensor:
    # torchmetrics 1.9 gives a constant answer up to 0.7 where its classes are uneven.
    return met.new_zeros((), dtype=torch.float32) if _one_class(answers) else binary_matthews_corrcoef(answers, met)


def _f1(probabilities: Tensor, met: Tensor) -> Tensor:
    return probabilities.new_tensor(torch.nan) if _one_class(met) else binary_f1_score(_answers(probabilities), met)


def _answers(probabilities: Tensor) -> Tensor:
    """Decide as the agent does; torchmetrics itself would call exactly 0.5 not met."""
    return (probabilities >= THRESHOLD).long()


def _one_class(met: Tensor) -> bool:
    return bool((met == met[0]).all())
