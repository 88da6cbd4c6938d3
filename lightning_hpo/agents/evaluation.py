"""Evaluation of an agent on the validation split and on the test split, and its predictions."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from lightning_hpo.agents.pair_outputs import PairOutputs
from lightning_hpo.agents.post_scores import PostScores, text_keys
from lightning_hpo.exceptions import NotFiniteError

__all__ = ["Batch", "EvaluatedModule", "ExactMetric", "PairMetric", "mean_metric"]

Batch = dict[str, Any]


class EvaluatedModule(LightningModule):
    """Base of a module that logs `val_metric`, `val_loss`, `val_constant` and further metrics; the same for the test.

    A subclass sets what `make_scores` needs before it calls this constructor.
    """

    MINIMIZED: ClassVar[frozenset[str]] = frozenset({"train_loss", "val_loss", "test_loss"})
    """Metrics of which a lower value is better. `--study.mode` follows this attribute, which any module may have."""

    fits_outside_training = False
    """Whether each validation fits what the decision depends on, as in training: for averaged weights."""

    def __init__(self) -> None:
        super().__init__()
        self.val_scores, self.test_scores = self.make_scores(), self.make_scores()

    @abstractmethod
    def make_scores(self) -> MetricCollection:
        """Build the metrics of a split: `loss`, and `pairs`, a `PairMetric`.

        `pairs` computes `metric`, `positive` (the share of positive answers) and others.
        """

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of a batch in float32."""

    @abstractmethod
    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss [B] of each window, and a mask [B] of the windows that have a label."""

    @abstractmethod
    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Update the metrics of a split with an evaluation batch."""

    @abstractmethod
    def answers(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer to each pair of an evaluation batch as plain values."""

    @abstractmethod
    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return whether all answers are the same, computed from the scores of a split."""

    def computed(self, scores: MetricCollection) -> dict[str, Tensor]:
        """Return the metrics of a split by their names."""
        values: dict[str, Tensor] = scores.compute()
        return values

    def post_scores(self, split: Literal["val", "test"]) -> PostScores | None:
        """Return the scores by post of the last evaluation of a split, or None before it.

        `refit` computes its intervals from them. Any module may have this method.
        """
        scores = self.val_scores if split == "val" else self.test_scores
        return cast(PairMetric, scores["pairs"]).post_scores

    def pair_outputs(self) -> PairOutputs:
        """Return the outputs of the last validation by pair, by which a registered model is verified."""
        return cast(PairMetric, self.val_scores["pairs"]).outputs()

    @property
    def fits_decision(self) -> bool:
        """Whether the current validation fits what the decision depends on, if the policy of the agent requires it."""
        in_training = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking
        return self.fits_outside_training or in_training

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics, also after the sanity check."""
        self.val_scores.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Update the metrics with a batch of whole pairs."""
        self._evaluate(self.val_scores, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation split."""
        self._log_scores("val", self.val_scores)

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        self.test_scores.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Update the metrics with a batch of whole pairs."""
        self._evaluate(self.test_scores, batch)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split."""
        self._log_scores("test", self.test_scores)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return a row for each pair: `post_id`, `criterion`, and the answer.

        A pair whose post cannot be read has no answer: all values are None, and `problem` says why.
        """
        rows = zip(batch["post_ids"], batch["criteria"], self.answers(batch), strict=True)
        problems = batch.get("problems") or [""] * len(batch["post_ids"])
        return [
            {
                "post_id": post_id,
                "criterion": criterion,
                **({**dict.fromkeys(answer), "problem": problem} if problem else answer),
            }
            for (post_id, criterion, answer), problem in zip(rows, problems, strict=True)
        ]

    def require_finite(self, name: str, value: Tensor) -> None:
        """Raise an error if a logged value is NaN or infinite.

        Raises:
            NotFiniteError: With the name of the value, the epoch and the step.
        """
        if not torch.isfinite(value):
            raise NotFiniteError(f"{name} is not finite in epoch {self.current_epoch}, by step {self.global_step}")

    def _evaluate(self, scores: MetricCollection, batch: Batch) -> None:
        logits = self.logits(batch)
        losses, counted = self.window_losses(logits, batch)
        scores["loss"].update(losses[counted])
        self.update_scores(scores, logits, batch)

    def _log_scores(self, split: str, scores: MetricCollection) -> None:
        values = self.computed(scores)
        for name in ("loss", "metric"):
            self.require_finite(f"{split}_{name}", values[name])
        values["constant"] = self.is_constant(values)
        # Each metric has already gathered the values of all devices.
        self.log_dict({f"{split}_{name}": value.float() for name, value in values.items()}, sync_dist=False)


class ExactMetric(Metric):
    """Metric whose states keep their type when a module is converted to another precision.

    In bf16, a mean stops changing after some hundreds of batches.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()) -> Self:
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), exclude_state)  # type: ignore[return-value]


class PairMetric(ExactMetric):
    """Base of the metrics over the (post, criterion) pairs of a split.

    Attributes:
        post_scores: Scores by post, after `compute`.
    """

    posts: list[Tensor]
    pairs: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("posts", "pairs"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.post_scores: PostScores | None = None

    def add_keys(self, posts: Sequence[str], criteria: Sequence[str], device: torch.device) -> None:
        """Add the keys of pairs, given the ids of their posts and criteria."""
        names = [f"{post}\n{criterion}" for post, criterion in zip(posts, criteria, strict=True)]
        self.posts.append(torch.tensor(text_keys(posts), device=device))
        self.pairs.append(torch.tensor(text_keys(names), device=device))

    @abstractmethod
    def pair_log_odds(self) -> Tensor:
        """Return the log odds [P] of all pairs so far, in their order."""

    def outputs(self) -> PairOutputs:
        """Return the outputs of all pairs, including those of other devices."""
        with self.sync_context():
            return PairOutputs(dim_zero_cat(self.pairs).cpu().numpy(), self.pair_log_odds().cpu().float().numpy())


class _Mean(ExactMetric, MeanMetric):
    pass


def mean_metric() -> MeanMetric:
    """Build a mean that is NaN as soon as one value is NaN."""
    return _Mean(nan_strategy="disable")
