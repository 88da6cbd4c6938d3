"""Base of the agents that find the evidence for a criterion in a post."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_hpo.agents.evaluation import Batch
from lightning_hpo.agents.settings import Settings
from lightning_hpo.agents.spans.decoding import Decoding, PairSpans, answer_rows, decode_pairs, with_whole_graphemes
from lightning_hpo.agents.spans.scores import SpanScores
from lightning_hpo.agents.text_agent import TextAgent

__all__ = ["SpanAgent"]

_DECODING = Decoding()


class SpanAgent(TextAgent):
    """Base class of the agents that find spans of a post, or answer "no evidence".

    With the null policy calibrated, `val_metric` is cross-fitted: the threshold that scores a post was fitted to other
    posts.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        decoding: The span decoding: from logits to answers.
        own_settings: Further groups of flags of the subclass, by name.
        kwargs: Further arguments of `TextAgent`.
    """

    SPAN_SCORES: ClassVar[str] = "pairs"
    """Name of the `SpanScores` among the metrics of a split."""

    null_threshold: Tensor

    def __init__(
        self, name: str, *, decoding: Decoding = _DECODING, own_settings: Mapping[str, Settings], **kwargs: Any
    ) -> None:
        self._decoding = Decoding.read(decoding)
        super().__init__(name, own_settings={**own_settings, "decoding": self._decoding}, **kwargs)
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

    def make_span_scores(self) -> SpanScores:
        """Build the metrics over the pairs of a split."""
        return SpanScores(None if self._calibrated else self._decoding.threshold)

    def spans(self, logits: Tensor, batch: Batch) -> PairSpans:
        """Return the best spans of each pair, given logits [R, T, 2]."""
        texts, pairs = batch.get("texts"), len(batch["post_ids"])
        return decode_pairs(logits, batch["offsets"], batch["pair_index"], pairs, self._decoding, texts)

    def span_answers(self, logits: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair, in characters of the post, given logits [R, T, 2].

        `start`, `end` and `score` are those of the best span, even if the answer is "no evidence" (`null`). If `top_k`
        is above 1, `answers` lists all answers. If the batch has the texts, spans consist of whole graphemes.

        Raises:
            NotFiniteError: If logits are NaN or infinite.
        """
        rows = answer_rows(self.spans(logits, batch), self.decoding.threshold)
        if "texts" not in batch:
            return rows
        return [with_whole_graphemes(row, text) for row, text in zip(rows, batch["texts"], strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Calibrate the null threshold during training, if the null policy requires it, and log the metrics."""
        pairs = self._span_scores(self.val_scores)
        if self._calibrated:
            if self.fits_decision:
                self.null_threshold.fill_(pairs.best_threshold())
            self.log("val_null_threshold", self.null_threshold.float())
        else:
            pairs.threshold = self.decoding.threshold
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split, with the null threshold that was calibrated on the validation split."""
        self._span_scores(self.test_scores).threshold = self.decoding.threshold
        super().on_test_epoch_end()

    def _span_scores(self, scores: MetricCollection) -> SpanScores:
        return cast(SpanScores, scores[self.SPAN_SCORES])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the agent or convert its weights, as torch does, but keep the type of the null threshold."""
        exact = self.null_threshold.clone()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.null_threshold = exact.to(self.null_threshold.device)
        return self

    @property
    def _calibrated(self) -> bool:
        return self._decoding.null_policy == "calibrated"
