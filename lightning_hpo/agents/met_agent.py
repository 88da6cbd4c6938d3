"""Base of the agents that decide whether a post meets a criterion."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_hpo.agents.calibration import ThresholdPolicy
from lightning_hpo.agents.evaluation import Batch
from lightning_hpo.agents.pair_decoding import MetDecision, met_rows, pair_log_odds
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.agents.text_agent import TextAgent

__all__ = ["MetAgent"]


class MetAgent(TextAgent):
    """Base class of the agents that decide whether a post meets a criterion.

    The log odds of a pair are the maximum over the windows of its post.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        threshold: Lowest probability at which a criterion is met: fixed (.5); fitted (the one with the highest macro
            F1, after a temperature with the highest likelihood, both fitted to the validation split after each epoch);
            or per_criterion (fitted, with a threshold for each criterion that has enough positive pairs). val_metric is
            cross-fitted: what scores a post was fitted to other posts.
        own_flags: Further flags of the subclass, by name.
        kwargs: Further arguments of `TextAgent`.
    """

    MET_SCORES: ClassVar[str] = "pairs"
    """Name of the `PairScores` among the metrics of a split."""

    def __init__(
        self,
        name: str,
        *,
        threshold: ThresholdPolicy = "fixed",
        own_flags: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._policy = threshold
        super().__init__(name, own_flags={**(own_flags or {}), "threshold": threshold}, **kwargs)
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

    def update_met(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Update the `PairScores` of a split with logits [R, 2] of a batch."""
        log_odds = _log_odds(logits, batch)
        scores[self.MET_SCORES].update(log_odds, batch["met"], batch["criteria"], batch["post_ids"])

    def met_answers(self, logits: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair, given logits [R, 2]: `met`, `probability` and `threshold`."""
        return met_rows(_log_odds(logits, batch), batch["criteria"], self.decision)

    def on_validation_epoch_end(self) -> None:
        """Fit the decision during training, if the policy requires it, and log the metrics."""
        if self._fitted is not None:
            if self.fits_decision:
                self._fitted.decision = cast(PairScores, self.val_scores[self.MET_SCORES]).fit()
            self.log("val_threshold", self.decision.threshold)
            self.log("val_temperature", self.decision.temperature)
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split, with the decision that was fitted to the validation split."""
        cast(PairScores, self.test_scores[self.MET_SCORES]).decision = self.decision
        super().on_test_epoch_end()


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
