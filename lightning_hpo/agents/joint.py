"""Joint agent: does this post meet this criterion, and where is the evidence?"""

from collections.abc import Mapping
from itertools import compress
from typing import Annotated, Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.baselines import BaselineData, pairs_of_baselines
from lightning_hpo.agents.evaluation import Batch, PairMetric, mean_metric
from lightning_hpo.agents.losses import row_loss, span_loss
from lightning_hpo.agents.met_agent import MetAgent
from lightning_hpo.agents.network.heads import CriteriaHead, JointHead
from lightning_hpo.agents.network.text_network import OnePassNetwork, TextNetwork
from lightning_hpo.agents.pair_decoding import met_and_span_logits
from lightning_hpo.agents.pair_outputs import PairOutputs
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.agents.post_scores import PostScores
from lightning_hpo.agents.span_agent import SpanAgent
from lightning_hpo.agents.spans.decoding import PairSpans
from lightning_hpo.data.labels import IGNORED
from lightning_hpo.data.one_pass_windows import Form
from lightning_hpo.flag_types import Bounds

__all__ = ["JointAgent"]

_HEAD = CriteriaHead()


class JointAgent(MetAgent, SpanAgent):
    """Decides whether a post meets a criterion, and finds the evidence: each post is read once, for all criteria.

    `val_metric` is the mean of `val_criteria_metric`, the macro F1 of the criteria agent, and of `val_evidence_metric`,
    the character overlap F1 of the evidence agent. Each is computed over the pairs on which that agent is scored.
    `PairScores` and `SpanScores` describe the other metrics.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        head: The layers after the encoder.
        evidence_weight: Share of the loss of the spans in the training loss; that of "met" or "not met" has the rest.
            Usual: 0.2 to 0.8.
        kwargs: Further arguments of `MetAgent`, `SpanAgent` and `TextAgent`.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "joint"
    LABELS = frozenset({"labels", "start_positions", "end_positions"})
    DATA_MODULE = "JointDataModule"
    form: Form = "one_pass"
    MET_SCORES: ClassVar[str] = "criteria"
    SPAN_SCORES: ClassVar[str] = "evidence"
    MEASURES: ClassVar[Mapping[str, tuple[str, ...]]] = {"val_loss": ("loss", "evidence_weight")}

    def __init__(
        self,
        name: str,
        *,
        head: CriteriaHead = _HEAD,
        evidence_weight: Annotated[float, Bounds(0, 1)] = 0.5,
        **kwargs: Any,
    ) -> None:
        self._head, self._evidence_weight = CriteriaHead.read(head), evidence_weight
        own_flags = {"evidence_weight": evidence_weight}
        super().__init__(name, own_settings={"head": self._head}, own_flags=own_flags, **kwargs)

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder with `width` features."""
        return JointHead(self._head, width)

    @property
    def network_class(self) -> type[TextNetwork]:
        """Class of the network, which takes the encoder and the head."""
        return OnePassNetwork

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a split. Their names start with `criteria_` and `evidence_`."""
        own = {self.MET_SCORES: PairScores(self._policy), self.SPAN_SCORES: self.make_span_scores()}
        return MetricCollection({"loss": mean_metric(), **own}, compute_groups=False)

    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss [R] of each window and criterion, and a mask [R] of those that have a label.

        Where a criterion is met by evidence that was not found in the post, the loss has no part for the spans.
        """
        met, spans = met_and_span_logits(logits)
        labels, mask = batch["labels"], batch["attention_mask"][batch["row_windows"]]
        found, _ = span_loss(spans, mask, batch["start_positions"], batch["end_positions"], self.loss)
        weight = self._evidence_weight
        return (1 - weight) * row_loss(met, labels, self.loss) + weight * found, labels != IGNORED

    def positive_windows(self, batch: Batch) -> Tensor:
        """Return a mask [R] of the training windows with the criterion."""
        labels: Tensor = batch["labels"]
        return labels == 1

    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Update the metrics of a split with an evaluation batch."""
        met, spans = met_and_span_logits(logits)
        self.update_met(scores, met, batch)
        known: list[bool] = batch["evidence_known"]
        found = PairSpans(*(column[torch.tensor(known, device=column.device)] for column in self.spans(spans, batch)))
        columns = (batch[name] for name in ("spans", "post_ids", "criteria", "texts"))
        if any(known):
            scores[self.SPAN_SCORES].update(found, *(list(compress(column, known)) for column in columns))

    def computed(self, scores: MetricCollection) -> dict[str, Tensor]:
        """Return the metrics of a split, with the mean of both as `metric`."""
        values = super().computed(scores)
        return {**values, "metric": (values["criteria_metric"] + values["evidence_metric"]) / 2}

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers of one kind are the same."""
        positive, found = values["criteria_positive"], values["evidence_positive"]
        return (positive == 0) | (positive == 1) | (found == 0) | (values["evidence_whole"] == 1)

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair: the keys of `met_answers` and of `span_answers`."""
        met, spans = met_and_span_logits(self.logits(batch))
        both = zip(self.met_answers(met, batch), self.span_answers(spans, batch), strict=True)
        return [{**decision, **found} for decision, found in both]

    def pair_baselines(self, data: BaselineData) -> Mapping[str, PostScores]:
        """Return constant answers, and simple models of the words."""
        return pairs_of_baselines(data)

    def post_scores(self, split: Literal["val", "test"]) -> PostScores | None:
        """Return the scores by post of the last evaluation of a split, or None before it."""
        met, spans = (metric.post_scores for metric in self._pair_metrics(split))
        return None if met is None or spans is None else PostScores.joint(met, spans)

    def pair_outputs(self) -> PairOutputs:
        """Return the outputs of the last validation by pair: the log odds of "met", then those of the best spans."""
        outputs = [metric.outputs() for metric in self._pair_metrics("val")]
        keys, log_odds = [each.keys for each in outputs], [each.log_odds for each in outputs]
        return PairOutputs(np.concatenate(keys), np.concatenate(log_odds))

    def _pair_metrics(self, split: Literal["val", "test"]) -> list[PairMetric]:
        scores = self.val_scores if split == "val" else self.test_scores
        return [cast(PairMetric, scores[name]) for name in (self.MET_SCORES, self.SPAN_SCORES)]
