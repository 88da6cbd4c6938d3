"""The losses, a value a row, so that whoever averages knows what over."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["IGNORE", "Balance", "Loss", "class_weights", "row_loss"]

IGNORE = -100

LossName = Literal["cross_entropy", "focal"]
Balance = Literal["none", "weighted", "effective_number"]

# How fast further examples of a class stop telling anything new; of the values that its paper tries, the one for
# classes of hundreds to thousands.
_BETA = 0.999


@dataclass(frozen=True)
class Loss(Settings):
    """What training makes small.

    Args:
        name: cross_entropy, or focal (Lin et al. 2017), which counts answers that are already right for less.
        label_smoothing: Share of the target spread evenly over the answers, 0 to 0.5.
        gamma: How much less focal counts what is right; cross_entropy has none.
        alpha: Weight of windows with the criterion or its evidence in focal, 0 to 1; the others weigh 1 - alpha. Left
            out: all weigh 1. cross_entropy has none.
        balance: Weight of the two classes in training: none; weighted (inverse to the number of windows), or
            effective_number (inverse to what so many windows tell, Cui et al. 2019, beta 0.999). The mean weight is 1.
    """

    FLAG: ClassVar[str] = "--model.loss"

    name: LossName = "cross_entropy"
    label_smoothing: float = 0.0
    gamma: float = 2.0
    alpha: float | None = None
    balance: Balance = "none"

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = []
        for flag, value, names in (
            ("name", self.name, get_args(LossName)),
            ("balance", self.balance, get_args(Balance)),
        ):
            if value not in names:
                found.append(f"{self.FLAG}.{flag}: got {value!r}; there are {', '.join(names)}")
        found += outside(f"{self.FLAG}.label_smoothing", self.label_smoothing, 0, 0.5)
        found += [] if self.alpha is None else outside(f"{self.FLAG}.alpha", self.alpha, 0, 1)
        return found + outside(f"{self.FLAG}.gamma", self.gamma, 0, 10)


def class_weights(balance: Balance, counts: tuple[int, int]) -> Tensor:
    """Give the weight [2] of a window of each class, such that the mean over all windows is 1.

    Args:
        balance: How classes are balanced.
        counts: Windows of an epoch without and with the criterion or its evidence.
    """
    windows = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    told = {
        "none": torch.ones_like(windows),
        "weighted": windows,
        "effective_number": (1 - _BETA**windows) / (1 - _BETA),
    }[balance]
    weights = 1 / told
    return (weights * windows.sum() / (weights * windows).sum()).float()


def row_loss(logits: Tensor, targets: Tensor, loss: Loss, mask: Tensor | None = None) -> Tensor:
    """Give the loss of each row.

    Args:
        logits: [N, C], of any float type; computed in float32.
        targets: [N] class indices, of which 0 stands for "not there"; a row with `IGNORE` costs 0.
        loss: Which loss.
        mask: [N, C], true where there is an answer to choose; None: everywhere.

    Returns:
        [N] losses.
    """
    mask = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask.bool()
    logits = logits.float()
    log_p = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).log_softmax(dim=-1)
    log_target = log_p.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    value = -log_target
    if loss.label_smoothing:
        even = -(log_p.masked_fill(~mask, 0.0)).sum(dim=-1) / mask.sum(dim=-1)
        value = (1 - loss.label_smoothing) * value + loss.label_smoothing * even
    if loss.name == "focal":
        # Never quite 0: there the slope of a power below 1 is infinite, and a certain row would teach NaN.
        wrong = (-log_target.expm1()).clamp(min=torch.finfo(logits.dtype).eps)
        value = value * wrong**loss.gamma
        if loss.alpha is not None:
            value = value * torch.where(targets == 0, 1 - loss.alpha, loss.alpha)
    return value.masked_fill(targets == IGNORE, 0.0)
