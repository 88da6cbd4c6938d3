"""Criteria agent: does this post meet this criterion?"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.baselines import BaselineData, met_baselines
from lightning_hpo.agents.evaluation import Batch, mean_metric
from lightning_hpo.agents.losses import row_loss
from lightning_hpo.agents.met_agent import MetAgent
from lightning_hpo.agents.network.heads import CriteriaHead, CriterionAttention, WindowHead
from lightning_hpo.agents.network.text_network import OnePassNetwork, TextNetwork
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.agents.post_scores import PostScores
from lightning_hpo.data.labels import IGNORED
from lightning_hpo.data.one_pass_windows import Form

__all__ = ["CriteriaAgent"]

_HEAD = CriteriaHead()


class CriteriaAgent(MetAgent):
    """Classifies whether a post meets a criterion.

    `val_metric` is the macro F1 over all (post, criterion) pairs: the mean of the F1 of "met" and of "not met".
    `PairScores` describes the other metrics.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        form: How a post and a criterion are read: pairs (both together, once for each criterion) or one_pass (the post
            once for all criteria, whose texts then attend to its tokens: several times faster).
        head: The layers after the encoder.
        kwargs: Further arguments of `MetAgent` and `TextAgent`.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "criteria"
    LABELS = frozenset({"labels"})
    DATA_MODULE = "CriteriaDataModule"

    def __init__(self, name: str, *, form: Form = "pairs", head: CriteriaHead = _HEAD, **kwargs: Any) -> None:
        self.form, self._head = form, CriteriaHead.read(head)
        super().__init__(name, own_settings={"head": self._head}, own_flags={"form": form}, **kwargs)

    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder with `width` features."""
        return (CriterionAttention if self.form == "one_pass" else WindowHead)(self._head, width)

    @property
    def network_class(self) -> type[TextNetwork]:
        """Class of the network, which takes the encoder and the head."""
        return OnePassNetwork if self.form == "one_pass" else TextNetwork

    def make_scores(self) -> MetricCollection:
        """Build the metrics of a split. `PairScores` holds those over pairs."""
        return MetricCollection({"loss": mean_metric(), "pairs": PairScores(self._policy)}, compute_groups=False)

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
        self.update_met(scores, logits, batch)

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers are "met", or none is."""
        return (values["positive"] == 0) | (values["positive"] == 1)

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair: `met`, `probability` and `threshold`."""
        return self.met_answers(self.logits(batch), batch)

    def pair_baselines(self, data: BaselineData) -> Mapping[str, PostScores]:
        """Return constant answers, and a linear model of the words."""
        return met_baselines(data)
