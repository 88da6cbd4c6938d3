"""Losses with one value for each row, so that the caller can choose how to average them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from lightning_hpo.agents.settings import Settings
from lightning_hpo.data.labels import IGNORED
from lightning_hpo.flag_types import Bounds

__all__ = ["Balance", "Loss", "class_weights", "log_probabilities", "loss_of", "row_loss", "span_loss"]

LossName = Literal["cross_entropy", "focal"]
Balance = Literal["none", "weighted", "effective_number"]

# Beta of the effective number of samples (Cui et al. 2019). 0.999 suits classes of hundreds to thousands of examples.
_BETA = 0.999


@dataclass(frozen=True)
class Loss(Settings):
    """The training loss.

    Args:
        name: cross_entropy, or focal (Lin et al. 2017), which gives less weight to examples that are already classified
            well.
        label_smoothing: Share of the target probability that is spread evenly over all classes (Szegedy et al. 2016).
            Usual: 0 to 0.2.
        gamma: Exponent of the focal loss: a higher gamma gives well classified examples less weight. Usual: 0.5 to 5.
            Ignored by cross_entropy.
        alpha: Weight of positive windows in the focal loss; negative windows have the weight 1 - alpha. Usual: 0.25 to
            0.75. Default: no weights. Ignored by cross_entropy.
        balance: Class weights in training: none; weighted (inverse to the number of windows of a class); or
            effective_number (inverse to the effective number of windows with beta 0.999, Cui et al. 2019). The mean
            weight over all windows is 1.
    """

    FLAG: ClassVar[str] = "--model.loss"

    name: LossName = "cross_entropy"
    label_smoothing: Annotated[float, Bounds(0, 0.5)] = 0.0
    gamma: Annotated[float, Bounds(0, 10)] = 2.0
    alpha: Annotated[float, Bounds(0, 1)] | None = None
    balance: Balance = "none"


def class_weights(balance: Balance, counts: tuple[int, int]) -> Tensor:
    """Return the weight [2] of a window of each class, from the numbers of negative and positive windows in an epoch.

    The mean weight over all windows is 1.
    """
    windows = torch.tensor(counts, dtype=torch.float64).clamp(min=1)
    effective = {
        "none": torch.ones_like(windows),
        "weighted": windows,
        "effective_number": (1 - _BETA**windows) / (1 - _BETA),
    }[balance]
    weights = 1 / effective
    return (weights * windows.sum() / (weights * windows).sum()).float()


def log_probabilities(logits: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the log-probability [N, C] of each class, and the mean [N] of their negatives over the possible classes.

    Args:
        logits: [N, C] of any floating point type. The result is float32.
        mask: [N, C], true for the classes that are possible; None for all classes.
    """
    mask = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask.bool()
    logits = logits.float()
    log_p = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).log_softmax(dim=-1)
    return log_p, -(log_p.masked_fill(~mask, 0.0)).sum(dim=-1) / mask.sum(dim=-1)


def loss_of(log_target: Tensor, even: Tensor, negative: Tensor, loss: Loss, draws: int = 1) -> Tensor:
    """Return the loss of each row from the probability of its right answer.

    Args:
        log_target: [N] log-probability of the right answer.
        even: [N] loss of a target that is spread evenly over all classes, for label smoothing.
        negative: [N] whether the right answer is the negative class.
        loss: Settings of the loss.
        draws: Number of classes that make up an answer, over which the loss is averaged.

    Returns:
        [N] losses.
    """
    value = -log_target / draws
    if loss.label_smoothing:
        value = (1 - loss.label_smoothing) * value + loss.label_smoothing * even
    if loss.name == "focal":
        # Clamped above 0: the gradient of a power below 1 is infinite at 0, and would make the loss NaN.
        wrong = (-log_target.expm1()).clamp(min=torch.finfo(log_target.dtype).eps)
        value = value * wrong**loss.gamma
        if loss.alpha is not None:
            value = value * torch.where(negative, 1 - loss.alpha, loss.alpha)
    return value


def row_loss(logits: Tensor, targets: Tensor, loss: Loss, mask: Tensor | None = None) -> Tensor:
    """Return the loss of each row.

    Args:
        logits: [N, C] of any floating point type. The loss is computed in float32.
        targets: [N] class indices; 0 is the negative class. Rows with `IGNORED` have a loss of 0.
        loss: Settings of the loss.
        mask: [N, C], true for the classes that are possible; None for all classes.

    Returns:
        [N] losses.
    """
    log_p, even = log_probabilities(logits, mask)
    log_target = log_p.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    return loss_of(log_target, even, targets == 0, loss).masked_fill(targets == IGNORED, 0.0)


def span_loss(logits: Tensor, mask: Tensor, starts: Tensor, ends: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return the loss [N] of the spans of windows, and a mask [N] of the windows that have a label.

    The cross entropy of a window with one piece of evidence is the mean of those of its start and its end: -log(p) / 2,
    where p is the product of both probabilities. If a window has several pieces, finding one is enough, so p is the sum
    over the pieces: the marginal likelihood of Clark & Gardner (2018), over starts and ends together. So the start of
    one piece with the end of another has no weight. The focal loss weights the answer as a whole, by (1 - p) ** gamma.

    Args:
        logits: [N, T, 2] start and end logits.
        mask: [N, T], true for tokens, false for padding.
        starts: [N, pieces] first token of each piece of evidence; 0 for "no evidence", and `IGNORED` for padding.
        ends: [N, pieces] last token of each.
        loss: Settings of the loss.
    """
    log_starts, log_ends = (log_probabilities(side, mask) for side in logits.unbind(dim=-1))
    firsts, lasts = starts.reshape(len(logits), -1), ends.reshape(len(logits), -1)
    pieces = log_starts[0].gather(1, firsts.clamp(min=0)) + log_ends[0].gather(1, lasts.clamp(min=0))
    # The first column is kept also without a label, with a loss of 0: without any piece, the gradient is NaN.
    absent = (firsts == IGNORED).index_fill(1, firsts.new_zeros(1), False)
    log_answer = pieces.masked_fill(absent, float("-inf")).logsumexp(dim=1)
    losses = loss_of(log_answer, (log_starts[1] + log_ends[1]) / 2, firsts[:, 0] == 0, loss, draws=2)
    labelled = firsts[:, 0] != IGNORED
    return losses.masked_fill(~labelled, 0.0), labelled
