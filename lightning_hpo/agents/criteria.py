"""Criteria agent: does this post meet this criterion?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score, BinaryPrecision, BinaryRecall, MulticlassF1Score

from lightning_hpo.agents.evaluation import Batch, mean_metric
from lightning_hpo.agents.losses import row_loss
from lightning_hpo.agents.network.heads import CriteriaHead, WindowHead
from lightning_hpo.agents.pair_decoding import THRESHOLD, met_rows, pair_probabilities
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.data.labels import IGNORED
from lightning_hpo.data.pairs import Pair

__all__ = ["CriteriaAgent"]

_HEAD = CriteriaHead()


class CriteriaAgent(TextAgent):
    """Classifies whether a post meets a criterion.

    The probability of a pair is the maximum over the windows of its post. `val_metric` is the macro F1 over all (post,
    criterion) pairs: the mean of the F1 of "met" and of "not met". Further metrics: `val_auroc`,
    `val_average_precision` and `val_mcc` over all pairs; `val_f1_CRITERION` of each criterion; and `val_criteria_f1`,
    their mean. `PairScores` describes when they are NaN.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        head: The layers after the encoder.
        kwargs: Further arguments of `TextAgent`.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "criteria"

    def __init__(self, name: str, *, head: CriteriaHead = _HEAD, **kwargs: Any) -> None:
        self._head = CriteriaHead.read(head)
        super().__init__(name, own_settings={"head": self._head}, **kwargs)

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder with `width` features."""
        return WindowHead(self._head, width)

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a split."""
        return MetricCollection(
            {
                "loss": mean_metric(),
                "positive": mean_metric(),
                "metric": _macro_f1(),
                "f1": BinaryF1Score(),
                "precision": BinaryPrecision(),
                "recall": BinaryRecall(),
                "pairs": PairScores(),
            },
            compute_groups=False,
        )

    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss [B] of each window, and a mask [B] of the windows that have a label."""
        labels = batch["labels"]
        return row_loss(logits, labels, self.loss), labels != IGNORED

    def positive_windows(self, batch: Batch) -> Tensor:
        """Return a mask [B] of the training windows with the criterion."""
        labels: Tensor = batch["labels"]
        return labels == 1

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Update the metrics of a split with an evaluation batch."""
        probabilities = _probabilities(logits, batch)
        answers = (probabilities >= THRESHOLD).long()
        scores["pairs"].update(probabilities, batch["met"], batch["criteria"])
        scores["positive"].update(answers.float())
        for name in ("metric", "f1", "precision", "recall"):
            scores[name].update(answers, batch["met"])

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers are "met", or none is."""
        return (values["positive"] == 0) | (values["positive"] == 1)

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair: `met` and `probability`."""
        return met_rows(_probabilities(self.logits(batch), batch))

    @classmethod
    def constant_answers(cls, pairs: Sequence[Pair], posts: Mapping[str, str]) -> dict[str, float]:  # noqa: ARG003
        """Return the `metric` of the constant baselines on some pairs. The posts are not used."""
        met = torch.tensor([pair.met for pair in pairs]).long()
        answers = {"always met": torch.ones_like(met), "never met": torch.zeros_like(met)}
        return {name: float(_macro_f1()(answer, met)) for name, answer in answers.items()}


def _macro_f1() -> MulticlassF1Score:
    return MulticlassF1Score(num_classes=2, average="macro")


def _probabilities(logits: Tensor, batch: Batch) -> Tensor:
    return pair_probabilities(logits, batch["pair_index"], len(batch["post_ids"]))
