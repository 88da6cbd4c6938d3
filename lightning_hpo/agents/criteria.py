"""Criteria agent: does this post meet this criterion?"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.baselines import BaselineData, linear_words
from lightning_hpo.agents.calibration import ThresholdPolicy
from lightning_hpo.agents.evaluation import Batch, mean_metric
from lightning_hpo.agents.losses import row_loss
from lightning_hpo.agents.network.heads import CriteriaHead, CriterionAttention, WindowHead
from lightning_hpo.agents.network.text_network import OnePassNetwork, TextNetwork
from lightning_hpo.agents.pair_decoding import MetDecision, met_rows, pair_log_odds
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.agents.post_scores import PostScores, text_keys
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.data.labels import IGNORED
from lightning_hpo.data.one_pass_windows import Form

__all__ = ["CriteriaAgent"]

_HEAD = CriteriaHead()


class CriteriaAgent(TextAgent):
    """Classifies whether a post meets a criterion.

    The log odds of a pair are the maximum over the windows of its post. `val_metric` is the macro F1 over all (post,
    criterion) pairs: the mean of the F1 of "met" and of "not met". `PairScores` describes the other metrics.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        form: How a post and a criterion are read: pairs (both together, once for each criterion) or one_pass (the post
            once for all criteria, whose texts then attend to its tokens: several times faster).
        head: The layers after the encoder.
        threshold: Lowest probability at which a criterion is met: fixed (.5); fitted (the one with the highest
            val_metric, after a temperature with the highest likelihood, both fitted to the validation split after each
            epoch); or per_criterion (fitted, with a threshold for each criterion that has enough positive pairs).
            val_metric is cross-fitted: what scores a post was fitted to other posts.
        kwargs: Further arguments of `TextAgent`.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str] = "criteria"

    def __init__(
        self,
        name: str,
        *,
        form: Form = "pairs",
        head: CriteriaHead = _HEAD,
        threshold: ThresholdPolicy = "fixed",
        **kwargs: Any,
    ) -> None:
        self.form, self._head, self._policy = form, CriteriaHead.read(head), threshold
        own_flags = {"form": form, "threshold": threshold}
        super().__init__(name, own_settings={"head": self._head}, own_flags=own_flags, **kwargs)
        # In checkpoints only if it is fitted.
        self._fitted = None if threshold == "fixed" else _FittedDecision()

    @property
    def decision(self) -> MetDecision:
        """Temperature and thresholds of the answers."""
        return MetDecision() if self._fitted is None else self._fitted.decision

    @decision.setter
    def decision(self, decision: MetDecision) -> None:
        if self._fitted is not None:
            self._fitted.decision = decision

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
        scores["pairs"].update(_log_odds(logits, batch), batch["met"], batch["criteria"], batch["post_ids"])

    def on_validation_epoch_end(self) -> None:
        """Fit the decision during training, if the policy requires it, and log the metrics."""
        if self._fitted is not None:
            if self.fits_decision:
                self._fitted.decision = cast(PairScores, self.val_scores["pairs"]).fit()
            self.log("val_threshold", self.decision.threshold)
            self.log("val_temperature", self.decision.temperature)
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split, with the decision that was fitted to the validation split."""
        cast(PairScores, self.test_scores["pairs"]).decision = self.decision
        super().on_test_epoch_end()

    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers are "met", or none is."""
        return (values["positive"] == 0) | (values["positive"] == 1)

    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair: `met` and `probability`."""
        return met_rows(_log_odds(self.logits(batch), batch), batch["criteria"], self.decision)

    def pair_baselines(self, data: BaselineData) -> Mapping[str, PostScores]:
        """Return constant answers, and a linear model of the words."""
        keys, met = text_keys([pair.post_id for pair in data.scored]), data.scored.met
        return {
            "always met": PostScores.of_labels(keys, np.ones_like(met), met),
            "never met": PostScores.of_labels(keys, np.zeros_like(met), met),
            "TF-IDF + logistic regression": linear_words(data),
        }


class _FittedDecision(nn.Module):
    """Keeps the decision in checkpoints: as the bytes of JSON, since code that copies a state expects tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.decision = MetDecision()

    def get_extra_state(self) -> Tensor:
        """Return the decision for a checkpoint."""
        return torch.tensor(list(json.dumps(asdict(self.decision)).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the decision of a checkpoint."""
        self.decision = MetDecision(**json.loads(bytes(state.tolist())))


def _log_odds(logits: Tensor, batch: Batch) -> Tensor:
    return pair_log_odds(logits, batch["pair_index"], len(batch["post_ids"]))
