"""Evidence agent: where in this post is the evidence for this criterion?"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.baselines import BaselineData, span_baselines
from lightning_hpo.agents.evaluation import Batch, mean_metric
from lightning_hpo.agents.losses import span_loss
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.post_scores import PostScores
from lightning_hpo.agents.span_agent import SpanAgent

__all__ = ["EvidenceAgent"]

_HEAD = EvidenceHead()


class EvidenceAgent(SpanAgent):
    """Finds the spans of a post that are evidence for a criterion, or answers "no evidence".

    `val_metric` is the character overlap F1 of the first answer, averaged over all (post, criterion) pairs. "No
    evidence" counts as in SQuAD 2.0. If a pair has several pieces of evidence, the best match counts. `SpanScores`
    describes the other metrics.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        head: The layers after the encoder.
        kwargs: Further arguments of `SpanAgent` and `TextAgent`.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "evidence"
    LABELS = frozenset({"start_positions", "end_positions"})
    DATA_MODULE = "EvidenceDataModule"

    def __init__(self, name: str, *, head: EvidenceHead = _HEAD, **kwargs: Any) -> None:
        self._head = EvidenceHead.read(head)
        super().__init__(name, own_settings={"head": self._head}, **kwargs)

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder with `width` features."""
        return TokenHead(self._head, width)

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a split. `SpanScores` holds those over pairs."""
        return MetricCollection({"loss": mean_metric(), "pairs": self.make_span_scores()}, compute_groups=False)

    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss [B] of each window, as `span_loss` explains, and a mask [B] of those that have a label."""
        return span_loss(logits, batch["attention_mask"], batch["start_positions"], batch["end_positions"], self.loss)

    def positive_windows(self, batch: Batch) -> Tensor:
        """Return a mask [B] of the training windows with evidence."""
        starts: Tensor = batch["start_positions"]
        return starts.reshape(len(starts), -1)[:, 0] > 0

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Update the metrics of a split with an evaluation batch."""
        spans = self.spans(logits, batch)
        scores["pairs"].update(spans, batch["spans"], batch["post_ids"], batch["criteria"], batch.get("texts"))

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers are "no evidence", or all answers are a whole window (or post)."""
        return (values["positive"] == 0) | (values["whole"] == 1)

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair, as `span_answers` explains."""
        return self.span_answers(self.logits(batch), batch)

    def pair_baselines(self, data: BaselineData) -> Mapping[str, PostScores]:
        """Return constant answers, and the sentence with the words of the criterion."""
        return span_baselines(data)
