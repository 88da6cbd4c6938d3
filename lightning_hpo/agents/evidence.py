"""The evidence agent: where does this post show this criterion?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.losses import IGNORE, Loss, row_loss
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.network.lora import Lora
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.agents.spans.decoding import Decoding, PairSpans, answer_rows, decode_pairs
from lightning_hpo.agents.spans.metrics import Span, span_f1
from lightning_hpo.agents.spans.scores import SpanScores
from lightning_hpo.agents.text_agent import Batch, ScoredPair, TextAgent, mean_metric

__all__ = ["EvidenceAgent"]

_HEAD, _LORA, _OPTIM, _SCHEDULE = EvidenceHead(), Lora(), Optim(), Schedule()
_LOSS, _DECODING = Loss(), Decoding()


class EvidenceAgent(TextAgent):
    """Finds the spans of a post that are evidence for a criterion, or says that there is none.

    `val_metric` is character-overlap F1 of the first answer, the mean over (post, criterion) pairs, with "no evidence"
    counted as in SQuAD 2.0; where a pair has several pieces of evidence, the nearest counts.

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
        decoding: How answers are read from the logits.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "evidence"

    null_threshold: Tensor

    def __init__(
        self,
        name: str,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        freeze_layers: int = 0,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        head: EvidenceHead = _HEAD,
        lora: Lora = _LORA,
        optim: Optim = _OPTIM,
        schedule: Schedule = _SCHEDULE,
        loss: Loss = _LOSS,
        decoding: Decoding = _DECODING,
    ) -> None:
        self._head = EvidenceHead.read(head)
        self._decoding = Decoding.read(decoding)
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
            further={"head": self._head, "decoding": self._decoding},
        )
        # In every checkpoint if it is calibrated, and else in none.
        start = torch.tensor(self._decoding.null_threshold)
        self.register_buffer("null_threshold", start, persistent=self._calibrated)

    @property
    def decoding(self) -> Decoding:
        """How answers are read now: the settings, with the null threshold that calibration has found."""
        if not self._calibrated:
            return self._decoding
        return replace(self._decoding, null_threshold=float(self.null_threshold))

    @decoding.setter
    def decoding(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self.null_threshold.fill_(decoding.null_threshold)

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder of `width` features."""
        return TokenHead(self._head, width)

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a part; those over pairs are `SpanScores`'."""
        return MetricCollection(
            {"loss": mean_metric(), "pairs": SpanScores(self._decoding.threshold)}, compute_groups=False
        )

    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the loss [B] of each window, and which [B] of them count.

        A window of one piece of evidence costs the mean of what its start and its end cost. Of several pieces it need
        only find one: what it costs, l = -log(p) / 2 for a piece alone, becomes -log(p_1 + p_2 + ...) / 2, the marginal
        likelihood of Clark & Gardner (2018), of starts and ends together, so that the start of one piece with the end
        of another is worth nothing. Other losses than cross entropy take the place of l as they are.
        """
        mask = batch["attention_mask"]
        starts, ends = logits.unbind(dim=-1)
        firsts, lasts = (batch[name].reshape(len(logits), -1) for name in ("start_positions", "end_positions"))
        pieces = [
            (row_loss(starts, first, self.loss, mask) + row_loss(ends, last, self.loss, mask)) / 2
            for first, last in zip(firsts.unbind(dim=1), lasts.unbind(dim=1), strict=True)
        ]
        # The first column stays where nothing is known, with a loss of 0: a gradient of no piece at all is NaN.
        absent = (firsts == IGNORE).index_fill(1, firsts.new_zeros(1), False)
        losses = torch.stack(pieces, dim=1).mul(-2).masked_fill(absent, float("-inf")).logsumexp(dim=1) / -2
        return losses, firsts[:, 0] != IGNORE

    def positive_windows(self, batch: Batch) -> Tensor:
        """Say which [B] training windows show the criterion, or its evidence."""
        starts: Tensor = batch["start_positions"]
        return starts.reshape(len(starts), -1)[:, 0] > 0

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Take an evaluation batch into the metrics of its part."""
        scores["pairs"].update(self._decode(logits, batch), batch["spans"])

    def on_validation_epoch_end(self) -> None:
        """Calibrate, if it is asked for and while training, and log `val_metric`, `val_loss` and others."""
        pairs = cast(SpanScores, self.val_scores["pairs"])
        if self._calibrated and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.null_threshold.fill_(pairs.best_threshold())
        if self._calibrated:
            self.log("val_null_threshold", self.null_threshold.float())
        pairs.threshold = self.decoding.threshold
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Log `test_metric`, `test_loss` and others, with the threshold that was calibrated on the validation part."""
        cast(SpanScores, self.test_scores["pairs"]).threshold = self.decoding.threshold
        super().on_test_epoch_end()

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Say whether every answer is "no evidence", or every answer is the whole of a window (or post)."""
        return (values["positive"] == 0) | (values["whole"] == 1)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[dict[str, Any]]:  # noqa: ARG002
        """Answer each pair of a batch: its ids, and where the evidence is, in characters of the post.

        `start`, `end` and `score` are those of the best span also where the answer is "no evidence" (`null`); with
        `top_k` above 1, `answers` lists all.

        Raises:
            NotFiniteError: If logits are not finite.
        """
        rows = answer_rows(self._decode(self.logits(batch), batch), self.decoding.threshold)
        return [
            {"post_id": post, "criterion": criterion, **row}
            for post, criterion, row in zip(batch["post_ids"], batch["criteria"], rows, strict=True)
        ]

    @classmethod
    def constant_answers(cls, pairs: Sequence[ScoredPair], posts: Mapping[str, str]) -> dict[str, float]:
        """Score the answers that read nothing, by the metric of the agent.

        Args:
            pairs: The pairs that validation scores.
            posts: Text by post.
        """
        answers: dict[str, list[Span | None]] = {
            "no evidence": [None for _ in pairs],
            "whole post": [(0, len(posts[pair.post_id])) for pair in pairs],
        }
        gold = [pair.spans for pair in pairs]
        return {name: fmean(map(span_f1, given, gold)) if gold else 0.0 for name, given in answers.items()}

    @property
    def _calibrated(self) -> bool:
        return self._decoding.null_policy == "calibrated"

    def _decode(self, logits: Tensor, batch: Batch) -> PairSpans:
        return decode_pairs(logits, batch["offsets"], batch["pair_index"], len(batch["post_ids"]), self._decoding)
