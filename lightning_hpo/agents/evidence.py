"""Evidence agent: where in this post is the evidence for this criterion?"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.baselines import BaselineData, similar_sentence
from lightning_hpo.agents.evaluation import Batch, mean_metric
from lightning_hpo.agents.losses import log_probabilities, loss_of
from lightning_hpo.agents.network.heads import EvidenceHead, TokenHead
from lightning_hpo.agents.post_scores import PostScores, text_keys
from lightning_hpo.agents.spans.decoding import Decoding, PairSpans, answer_rows, decode_pairs, with_whole_graphemes
from lightning_hpo.agents.spans.metrics import Span, span_f1
from lightning_hpo.agents.spans.scores import SpanScores
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.data.labels import IGNORED

__all__ = ["EvidenceAgent"]

_HEAD, _DECODING = EvidenceHead(), Decoding()


class EvidenceAgent(TextAgent):
    """Finds the spans of a post that are evidence for a criterion, or answers "no evidence".

    `val_metric` is the character overlap F1 of the first answer, averaged over all (post, criterion) pairs. "No
    evidence" counts as in SQuAD 2.0. If a pair has several pieces of evidence, the best match counts. With the null
    policy calibrated, `val_metric` is cross-fitted: the threshold that scores a post was fitted to other posts.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        head: The layers after the encoder.
        decoding: The span decoding: from logits to answers.
        kwargs: Further arguments of `TextAgent`.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "evidence"

    null_threshold: Tensor

    def __init__(self, name: str, *, head: EvidenceHead = _HEAD, decoding: Decoding = _DECODING, **kwargs: Any) -> None:
        self._head, self._decoding = EvidenceHead.read(head), Decoding.read(decoding)
        super().__init__(name, own_settings={"head": self._head, "decoding": self._decoding}, **kwargs)
        # Saved in checkpoints only if it is calibrated.
        start = torch.tensor(self._decoding.null_threshold)
        self.register_buffer("null_threshold", start, persistent=self._calibrated)

    @property
    def decoding(self) -> Decoding:
        """The decoding settings, with the calibrated null threshold if there is one."""
        if not self._calibrated:
            return self._decoding
        return replace(self._decoding, null_threshold=float(self.null_threshold))

    @decoding.setter
    def decoding(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self.null_threshold.fill_(decoding.null_threshold)

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder with `width` features."""
        return TokenHead(self._head, width)

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a split. `SpanScores` holds those over pairs."""
        threshold = None if self._calibrated else self._decoding.threshold
        return MetricCollection({"loss": mean_metric(), "pairs": SpanScores(threshold)}, compute_groups=False)

    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss [B] of each window, and a mask [B] of the windows that have a label.

        The cross entropy of a window with one piece of evidence is the mean of those of its start and its end: -log(p)
        / 2, where p is the product of both probabilities. If a window has several pieces, finding one is enough, so p
        is the sum over the pieces: the marginal likelihood of Clark & Gardner (2018), over starts and ends together. So
        the start of one piece with the end of another has no weight. The focal loss weights the answer as a whole, by
        (1 - p) ** gamma.
        """
        starts, ends = (log_probabilities(side, batch["attention_mask"]) for side in logits.unbind(dim=-1))
        firsts, lasts = (batch[name].reshape(len(logits), -1) for name in ("start_positions", "end_positions"))
        pieces = starts[0].gather(1, firsts.clamp(min=0)) + ends[0].gather(1, lasts.clamp(min=0))
        # The first column is kept also without a label, with a loss of 0: without any piece, the gradient is NaN.
        absent = (firsts == IGNORED).index_fill(1, firsts.new_zeros(1), False)
        log_answer = pieces.masked_fill(absent, float("-inf")).logsumexp(dim=1)
        losses = loss_of(log_answer, (starts[1] + ends[1]) / 2, firsts[:, 0] == 0, self.loss, draws=2)
        labelled = firsts[:, 0] != IGNORED
        return losses.masked_fill(~labelled, 0.0), labelled

    def positive_windows(self, batch: Batch) -> Tensor:
        """Return a mask [B] of the training windows with evidence."""
        starts: Tensor = batch["start_positions"]
        return starts.reshape(len(starts), -1)[:, 0] > 0

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Update the metrics of a split with an evaluation batch."""
        spans, texts = self._decode(logits, batch), batch.get("texts")
        scores["pairs"].update(spans, batch["spans"], batch["post_ids"], batch["criteria"], texts)

    def on_validation_epoch_end(self) -> None:
        """Calibrate the null threshold during training, if the null policy requires it, and log the metrics."""
        pairs = cast(SpanScores, self.val_scores["pairs"])
        if self._calibrated:
            if self.fits_decision:
                self.null_threshold.fill_(pairs.best_threshold())
            self.log("val_null_threshold", self.null_threshold.float())
        else:
            pairs.threshold = self.decoding.threshold
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split, with the null threshold that was calibrated on the validation split."""
        cast(SpanScores, self.test_scores["pairs"]).threshold = self.decoding.threshold
        super().on_test_epoch_end()

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers are "no evidence", or all answers are a whole window (or post)."""
        return (values["positive"] == 0) | (values["whole"] == 1)

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair, in characters of the post.

        `start`, `end` and `score` are those of the best span, even if the answer is "no evidence" (`null`). If `top_k`
        is above 1, `answers` lists all answers. If the batch has the texts, spans consist of whole graphemes.

        Raises:
            NotFiniteError: If logits are NaN or infinite.
        """
        rows = answer_rows(self._decode(self.logits(batch), batch), self.decoding.threshold)
        if "texts" not in batch:
            return rows
        return [with_whole_graphemes(row, text) for row, text in zip(rows, batch["texts"], strict=True)]

    def pair_baselines(self, data: BaselineData) -> Mapping[str, PostScores]:
        """Return constant answers, and the sentence with the words of the criterion."""
        keys, gold = text_keys([pair.post_id for pair in data.scored]), [pair.spans for pair in data.scored]
        answers: dict[str, list[Span | None]] = {
            "no evidence": [None for _ in gold],
            "whole post": [(0, len(data.posts[pair.post_id])) for pair in data.scored],
        }
        constant = {name: PostScores.of_means(keys, list(map(span_f1, given, gold))) for name, given in answers.items()}
        return {**constant, "most similar sentence": similar_sentence(data)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the agent or convert its weights, as torch does, but keep the type of the null threshold."""
        exact = self.null_threshold.clone()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.null_threshold = exact.to(self.null_threshold.device)
        return self

    @property
    def _calibrated(self) -> bool:
        return self._decoding.null_policy == "calibrated"

    def _decode(self, logits: Tensor, batch: Batch) -> PairSpans:
        texts, pairs = batch.get("texts"), len(batch["post_ids"])
        return decode_pairs(logits, batch["offsets"], batch["pair_index"], pairs, self._decoding, texts)
