"""The losses, a value a row, so that whoever averages knows what over."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["IGNORE", "Loss", "row_loss"]

IGNORE = -100
_NAMES = ("cross_entropy", "focal")


@dataclass(frozen=True)
class Loss(Settings):
    """What training makes small.

    Args:
        name: cross_entropy, or focal (Lin et al. 2017), which counts answers that are already right for less.
        label_smoothing: Share of the target spread evenly over the answers, 0 to 0.5.
        gamma: How much less focal counts what is right; cross_entropy has none.
    """

    FLAG: ClassVar[str] = "--model.loss"

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    label_smoothing: float = 0.0
    gamma: float = 2.0

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = [] if self.name in _NAMES else [f"{self.FLAG}.name: got {self.name!r}; there are {', '.join(_NAMES)}"]
        found += outside(f"{self.FLAG}.label_smoothing", self.label_smoothing, 0, 0.5)
        return found + outside(f"{self.FLAG}.gamma", self.gamma, 0, 10)


def row_loss(logits: Tensor, targets: Tensor, loss: Loss, mask: Tensor | None = None) -> Tensor:
    """Give the loss of each row.

    Args:
        logits: [N, C], of any float type; computed in float32.
        targets: [N] class indices; a row with `IGNORE` costs 0.
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
        value = value * (1 - log_target.exp()) ** loss.gamma
    return value.masked_fill(targets == IGNORE, 0.0)
