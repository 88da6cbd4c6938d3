"""The evidence agent: where does this post show this criterion?"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.lora import Lora
from lightning_hpo.agents.losses import IGNORE, Loss, row_loss
from lightning_hpo.agents.optimizers import Optim
from lightning_hpo.agents.schedules import Schedule
from lightning_hpo.agents.span_decoding import Decoding, PairSpans, decode_pairs
from lightning_hpo.agents.span_metrics import Span, SpanF1
from lightning_hpo.agents.text_agent import Batch, ScoredPair, TextAgent, mean_metric

__all__ = ["EvidenceAgent"]

_HEAD, _LORA, _OPTIM, _SCHEDULE = EvidenceHead(), Lora(), Optim(), Schedule()
_LOSS, _DECODING = Loss(), Decoding()


class EvidenceAgent(TextAgent):
    """Finds the span of a post that is evidence for a criterion, or says that there is none.

    `val_metric` is character-overlap F1, the mean over (post, criterion) pairs, with "no evidence" counted as in
    SQuAD 2.0.

    Args:
        name: Encoder: a hub id such as roberta-base, or a folder.
        dropout: Dropout of the encoder's hidden layers; left out: the encoder's own.
        attention_dropout: Dropout of the encoder's attention weights; left out: the encoder's own.
        freeze_layers: How many of the encoder's first layers stay as they are, the embeddings with them; 0: none.
        gradient_checkpointing: Compute activations again in the backward pass: less memory, more time.
        head: The layers after the encoder.
        lora: Adapters that are trained in the place of the encoder, for large ones.
        optim: The optimizer.
        schedule: The learning rate over the steps.
        loss: What training makes small.
        decoding: How an answer is read from the logits.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "evidence"

    def __init__(
        self,
        name: str,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        freeze_layers: int = 0,
        gradient_checkpointing: bool = False,
        head: EvidenceHead = _HEAD,
        lora: Lora = _LORA,
        optim: Optim = _OPTIM,
        schedule: Schedule = _SCHEDULE,
        loss: Loss = _LOSS,
        decoding: Decoding = _DECODING,
    ) -> None:
        self._head = EvidenceHead.read(head)
        self.decoding = Decoding.read(decoding)
        super().__init__(
            name,
            dropout=dropout,
            attention_dropout=attention_dropout,
            freeze_layers=freeze_layers,
            gradient_checkpointing=gradient_checkpointing,
            lora=lora,
            optim=optim,
            schedule=schedule,
            loss=loss,
            further={"head": self._head, "decoding": self.decoding},
        )

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder of `width` features."""
        return TokenHead(self._head, width)

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a part; `f1` is over the pairs that have evidence."""
        return MetricCollection(
            {
                "loss": mean_metric(),
                "positive": mean_metric(),
                "metric": SpanF1(),
                "f1": SpanF1(),
                "null_accuracy": mean_metric(),
            },
            compute_groups=False,
        )

    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the loss [B] of each window, the mean of its start's and its end's, and which [B] of them count."""
        mask = batch["attention_mask"]
        starts, ends = logits.unbind(dim=-1)
        start = row_loss(starts, batch["start_positions"], self.loss, mask)
        end = row_loss(ends, batch["end_positions"], self.loss, mask)
        return (start + end) / 2, batch["start_positions"] != IGNORE

    def positive_windows(self, batch: Batch) -> Tensor:
        """Say which [B] training windows show the criterion, or its evidence."""
        starts: Tensor = batch["start_positions"]
        return starts.reshape(len(starts), -1)[:, 0] > 0

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Take an evaluation batch into the metrics of its part."""
        spans = self._decode(logits, batch)
        answers = _answers(spans)
        gold: list[list[Span]] = batch["spans"]
        rows = [(answer, right) for answer, right in zip(answers, gold, strict=True) if right]
        nothing = torch.tensor([not right for right in gold], device=logits.device)
        scores["metric"].update(answers, gold)
        scores["f1"].update([answer for answer, _ in rows], [right for _, right in rows])
        scores["positive"].update((~spans.null).float())
        scores["null_accuracy"].update((spans.null == nothing).float())

    def is_constant(self, positive: Tensor) -> Tensor:
        """Say whether every answer is "no evidence"."""
        return positive == 0

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[dict[str, Any]]:  # noqa: ARG002
        """Answer each pair of a batch: its ids, and where the evidence is, in characters of the post.

        `start` and `end` are those of the best span also where the answer is "no evidence" (`null`).
        """
        spans = self._decode(self.logits(batch), batch)
        columns = (spans.start.tolist(), spans.end.tolist(), spans.score.tolist(), spans.null.tolist())
        rows = zip(batch["post_ids"], batch["criteria"], *columns, strict=True)
        names = ("post_id", "criterion", "start", "end", "score", "null")
        return [dict(zip(names, row, strict=True)) for row in rows]

    @classmethod
    def constant_answers(cls, pairs: Sequence[ScoredPair], posts: Mapping[str, str]) -> dict[str, float]:
        """Score the answers that read nothing, by the metric of the agent.

        Args:
            pairs: The pairs that validation scores.
            posts: Text by post.
        """
        gold = [pair.spans for pair in pairs]
        answers: dict[str, list[Span | None]] = {
            "no evidence": [None for _ in pairs],
            "whole post": [(0, len(posts[pair.post_id])) for pair in pairs],
        }
        return {name: float(SpanF1()(answer, gold)) for name, answer in answers.items()}

    def _decode(self, logits: Tensor, batch: Batch) -> PairSpans:
        return decode_pairs(logits, batch["offsets"], batch["pair_index"], len(batch["post_ids"]), self.decoding)


def _answers(spans: PairSpans) -> list[Span | None]:
    rows = zip(spans.start.tolist(), spans.end.tolist(), spans.null.tolist(), strict=True)
    return [None if null else (start, end) for start, end, null in rows]
