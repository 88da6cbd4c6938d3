"""The criteria agent: does this post meet this criterion?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score, BinaryPrecision, BinaryRecall, MulticlassF1Score

from lightning_hpo.agents.losses import IGNORE, Loss, row_loss
from lightning_hpo.agents.network.heads import CriteriaHead, WindowHead
from lightning_hpo.agents.network.lora import Lora
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.agents.pair_decoding import THRESHOLD, met_rows, pair_probabilities
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.agents.text_agent import Batch, ScoredPair, TextAgent, mean_metric

__all__ = ["CriteriaAgent"]

_HEAD, _LORA, _OPTIM, _SCHEDULE, _LOSS = CriteriaHead(), Lora(), Optim(), Schedule(), Loss()


class CriteriaAgent(TextAgent):
    """Says whether a post meets a criterion.

    A post's probability is the highest over its windows. `val_metric` is the mean of the F1 of "met" and the F1 of
    "not met" over all (post, criterion) pairs. Logged beside it: `val_auroc`, `val_average_precision` and `val_mcc`
    over all pairs, `val_f1_CRITERION` by criterion and `val_criteria_f1`, the mean of these. `PairScores` says where
    they are NaN.

    Args:
        name: Encoder: a hub id such as roberta-base, or a folder.
        dropout: Dropout of the encoder's hidden layers; left out: the encoder's own.
        attention_dropout: Dropout of the encoder's attention weights; left out: the encoder's own.
        freeze_layers: How many of the encoder's first layers stay as they are, the embeddings with them; 0: none.
        gradient_checkpointing: Compute activations again in the backward pass: less memory, more time.
        compile: Train through torch.compile: some minutes once, then faster steps on a graphics gpu.
        head: The layers after the encoder.
        lora: Adapters that are trained in the place of the encoder, for large ones.
        optim: The optimizer.
        schedule: The learning rate over the steps.
        loss: What training makes small.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "criteria"

    def __init__(
        self,
        name: str,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        freeze_layers: int = 0,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        head: CriteriaHead = _HEAD,
        lora: Lora = _LORA,
        optim: Optim = _OPTIM,
        schedule: Schedule = _SCHEDULE,
        loss: Loss = _LOSS,
    ) -> None:
        self._head = CriteriaHead.read(head)
        super().__init__(
            name,
            dropout=dropout,
            attention_dropout=attention_dropout,
            freeze_layers=freeze_layers,
            gradient_checkpointing=gradient_checkpointing,
            compile=compile,
            lora=lora,
            optim=optim,
            schedule=schedule,
            loss=loss,
            further={"head": self._head},
        )

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder of `width` features."""
        return WindowHead(self._head, width)

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a part."""
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
        """Give the loss [B] of each window, and which [B] of them count."""
        labels = batch["labels"]
        return row_loss(logits, labels, self.loss), labels != IGNORE

    def positive_windows(self, batch: Batch) -> Tensor:
        """Say which [B] training windows show the criterion, or its evidence."""
        labels: Tensor = batch["labels"]
        return labels == 1

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Take an evaluation batch into the metrics of its part."""
        probabilities = _probabilities(logits, batch)
        answers = (probabilities >= THRESHOLD).long()
        scores["pairs"].update(probabilities, batch["met"], batch["criteria"])
        scores["positive"].update(answers.float())
        for name in ("metric", "f1", "precision", "recall"):
            scores[name].update(answers, batch["met"])

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Say whether all answers are "met", or none is."""
        return (values["positive"] == 0) | (values["positive"] == 1)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[dict[str, Any]]:  # noqa: ARG002
        """Answer each pair of a batch: its ids, met or not, and the probability."""
        rows = met_rows(_probabilities(self.logits(batch), batch))
        return [
            {"post_id": post, "criterion": criterion, **row}
            for post, criterion, row in zip(batch["post_ids"], batch["criteria"], rows, strict=True)
        ]

    @classmethod
    def constant_answers(cls, pairs: Sequence[ScoredPair], posts: Mapping[str, str]) -> dict[str, float]:  # noqa: ARG003
        """Score the answers that read nothing, by the metric of the agent.

        Args:
            pairs: The pairs that validation scores.
            posts: Text by post; not needed here.
        """
        met = torch.tensor([pair.met for pair in pairs]).long()
        answers = {"always met": torch.ones_like(met), "never met": torch.zeros_like(met)}
        return {name: float(_macro_f1()(answer, met)) for name, answer in answers.items()}


def _macro_f1() -> MulticlassF1Score:
    return MulticlassF1Score(num_classes=2, average="macro")


def _probabilities(logits: Tensor, batch: Batch) -> Tensor:
    return pair_probabilities(logits, batch["pair_index"], len(batch["post_ids"]))
