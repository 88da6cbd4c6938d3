"""What both agents share: an encoder with a head, its training, and how a part of the data is scored."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import signature
from typing import Any, ClassVar, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from lightning_hpo.agents.losses import Loss, class_weights
from lightning_hpo.agents.network.dropout import quicken_dropout
from lightning_hpo.agents.network.encoder import checkpoint_gradients, freeze_layers, load_encoder
from lightning_hpo.agents.network.lora import Lora, add_adapters, merge_adapters
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.optim.optimizers import Optim, make_optimizer
from lightning_hpo.agents.optim.schedules import Schedule, make_schedule
from lightning_hpo.agents.settings import Settings, outside, raise_problems
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError, NotFiniteError

__all__ = ["Batch", "ScoredPair", "TextAgent", "mean_metric"]

Batch = dict[str, Any]

# Reading a number back from a GPU makes the GPU wait; a NaN stays in a sum, so it need not be looked for at each step.
_STEPS_BETWEEN_CHECKS = 50


class ScoredPair(Protocol):
    """What `constant_answers` reads of a (post, criterion) pair."""

    @property
    def post_id(self) -> str:
        """The post."""

    @property
    def met(self) -> bool:
        """Whether the post meets the criterion."""

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Characters [start, end) of the evidence."""


class TextAgent(LightningModule):
    """Base of both agents.

    Every call of the model goes through `self.network`, so that the network of a registered model can take its place.
    """

    agent: ClassVar[str]

    def __init__(
        self,
        name: str,
        *,
        dropout: float | None,
        attention_dropout: float | None,
        freeze_layers: int,
        gradient_checkpointing: bool,
        compile: bool,
        lora: Lora | Mapping[str, Any] | None,
        optim: Optim | Mapping[str, Any] | None,
        schedule: Schedule | Mapping[str, Any] | None,
        loss: Loss | Mapping[str, Any] | None,
        further: Mapping[str, Settings],
    ) -> None:
        super().__init__()
        self._lora = Lora.read(lora)
        self.optim = Optim.read(optim)
        self.schedule = Schedule.read(schedule)
        self.loss = Loss.read(loss)
        problems = _problems(dropout, attention_dropout, freeze_layers)
        groups = {"lora": self._lora, "optim": self.optim, "schedule": self.schedule, "loss": self.loss, **further}
        raise_problems([*problems, *(line for group in groups.values() for line in group.problems())])
        # Plain values only: a checkpoint must load without unpickling anything of ours.
        self.save_hyperparameters(
            {
                "name": name,
                "dropout": dropout,
                "attention_dropout": attention_dropout,
                "freeze_layers": freeze_layers,
                "gradient_checkpointing": gradient_checkpointing,
                "compile": compile,
                **{flag: asdict(group) for flag, group in groups.items()},
            },
            logger=False,
        )
        encoder = load_encoder(name, dropout=dropout, attention_dropout=attention_dropout)
        add_adapters(encoder, self._lora)
        _prepare(encoder, freeze_layers, gradient_checkpointing)
        self.network: nn.Module = TextNetwork(encoder, self.make_head(encoder.config.hidden_size))
        quicken_dropout(self.network)
        self.val_scores = self.make_scores()
        self.test_scores = self.make_scores()
        # Metrics, and not numbers that Lightning sums up: it forgets its sums when it goes on within an epoch.
        self._train_loss, self._augmented, self._unaugmentable = mean_metric(), mean_metric(), mean_metric()
        self._class_weights: Tensor | None = None
        self._compile = compile
        self._compiled: Callable[..., Tensor] | None = None

    @classmethod
    def flag_problems(cls, values: Mapping[str, Any]) -> list[str]:
        """Give one line for each flag with which no agent can be made or trained; no encoder is needed to say so.

        Args:
            values: Arguments of the agent, as plain values.
        """
        # Of its bases too: a class may pass on to them what it does not name.
        kinds = [kind for kind in reversed(cls.__mro__) if issubclass(kind, TextAgent)]
        defaults = {name: taken.default for kind in kinds for name, taken in signature(kind).parameters.items()}
        groups = [type(value).read(values.get(name)) for name, value in defaults.items() if isinstance(value, Settings)]
        own = _problems(values.get("dropout"), values.get("attention_dropout"), values.get("freeze_layers", 0))
        missing = Optim.read(values.get("optim")).missing()
        return [*own, *(line for group in groups for line in group.problems()), *missing]

    @abstractmethod
    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder of `width` features."""

    @abstractmethod
    def make_scores(self) -> MetricCollection:
        """Build the metrics of a part; `loss`, `metric` and `positive` (the share of such answers) are among them."""

    @abstractmethod
    def window_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Give the loss [B] of each window, and which [B] of them count."""

    @abstractmethod
    def positive_windows(self, batch: Batch) -> Tensor:
        """Say which [B] training windows show the criterion, or its evidence."""

    @abstractmethod
    def update_scores(self, scores: MetricCollection, logits: Tensor, batch: Batch) -> None:
        """Take an evaluation batch into the metrics of its part."""

    @abstractmethod
    def is_constant(self, values: Mapping[str, Tensor]) -> Tensor:
        """Say whether every answer is the same, from the scores of a part."""

    @property
    def served_network(self) -> nn.Module:
        """The network as it is registered: adapters, if it has any, added to the weights."""
        return merge_adapters(self.network, self._lora)

    def logits(self, batch: Batch) -> Tensor:
        """Run the network; in float32, whatever the precision."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        run = self._compiled if self._compiled is not None and self.training else self.network
        # By position: the module of an exported program takes its inputs as it was exported, and no names.
        result: Tensor = run(*(batch[name] for name in names if name in batch))
        return result.float()

    def forward(self, batch: Batch) -> Tensor:
        """Give the logits of a batch."""
        return self.logits(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Give the mean loss over the windows."""
        losses, counted = self.window_losses(self.logits(batch), batch)
        if self._class_weights is not None:
            losses = losses * self._class_weights[self.positive_windows(batch).long()]
        loss = losses.sum() / counted.sum().clamp(min=1)
        # Once a window, since `mean_metric` takes no weights.
        self._train_loss.update(loss.detach().expand(len(losses)))
        self.log("train_loss", self._train_loss, on_step=False, on_epoch=True)
        for name, share in (("augmented", self._augmented), ("unaugmentable", self._unaugmentable)):
            if name in batch:
                share.update(batch[name].float())
                self.log(name, share, on_step=False, on_epoch=True)
        if loss.device.type == "cpu" or (batch_idx + 1) % _STEPS_BETWEEN_CHECKS == 0:
            self._require_finite("train_loss", self._train_loss.mean_value)
        return loss

    def on_fit_start(self) -> None:
        """Compile, if that is wanted; weigh the classes by what was counted, if they shall be balanced."""
        if self._compile:
            # The function and no module, whose weights would have other names in a checkpoint; of every length at once.
            self._compiled = torch.compile(self.network.forward, dynamic=True)
        if self.loss.balance != "none":
            counts = getattr(self.trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
            if counts is None:
                raise InputError(
                    f"--model.loss.balance: got {self.loss.balance}, and the data module counts no windows of each "
                    "class (`class_counts`); use none"
                )
            self._class_weights = class_weights(self.loss.balance, counts).to(self.device)

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch, and what a checkpoint held of it."""
        for metric in self._train_means:
            metric.reset()

    def on_train_epoch_end(self) -> None:
        """Look for a loss that was not finite, and for an augmentation that did nothing."""
        self._require_finite("train_loss", self._train_loss.mean_value)
        augmentation = getattr(self.trainer.datamodule, "aug", None)  # type: ignore[attr-defined]
        if isinstance(augmentation, Augmentation):
            augmentation.require_effect(float(self._augmented.compute()), float(self._augmented.weight))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the means of the epoch so far; a checkpoint of weights alone stays one."""
        if "optimizer_states" in checkpoint:
            checkpoint["train_means"] = [metric.metric_state for metric in self._train_means]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the means of the epoch so far."""
        for metric, states in zip(self._train_means, checkpoint.get("train_means", ()), strict=False):
            for name, value in states.items():
                setattr(metric, name, value.to(metric.device))

    def on_validation_epoch_start(self) -> None:
        """Forget what came before, the sanity check's batches among it."""
        self.val_scores.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Score a batch of whole pairs."""
        self._evaluate(self.val_scores, batch)

    def on_validation_epoch_end(self) -> None:
        """Log `val_metric`, `val_loss`, `val_constant` and others."""
        self._log_scores("val", self.val_scores)

    def on_test_epoch_start(self) -> None:
        """Forget what came before."""
        self.test_scores.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Score a batch of whole pairs."""
        self._evaluate(self.test_scores, batch)

    def on_test_epoch_end(self) -> None:
        """Log `test_metric`, `test_loss`, `test_constant` and others."""
        self._log_scores("test", self.test_scores)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, and its schedule by the step."""
        if not isinstance(self.network, TextNetwork):
            raise TypeError(f"a {type(self.network).__name__} cannot be trained; only the agent's own network can")
        optimizer = make_optimizer(self.network, self.optim)
        schedule = make_schedule(optimizer, self.schedule, self._training_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _train_means(self) -> tuple[MeanMetric, ...]:
        return self._train_loss, self._augmented, self._unaugmentable

    def _training_steps(self) -> int:
        trainer = self.trainer
        ends = [float(trainer.max_steps)] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
            ends.append(float(steps * trainer.max_epochs))
        if not ends or min(ends) == float("inf"):
            raise InputError("--trainer.max_epochs, --trainer.max_steps: no end is set; --model.schedule needs one")
        return int(min(ends))

    def _evaluate(self, scores: MetricCollection, batch: Batch) -> None:
        logits = self.logits(batch)
        losses, counted = self.window_losses(logits, batch)
        scores["loss"].update(losses[counted])
        self.update_scores(scores, logits, batch)

    def _log_scores(self, part: str, scores: MetricCollection) -> None:
        values = scores.compute()
        for name in ("loss", "metric"):
            self._require_finite(f"{part}_{name}", values[name])
        values["constant"] = self.is_constant(values)
        # Each metric has gathered all devices' values by itself.
        self.log_dict({f"{part}_{name}": value.float() for name, value in values.items()}, sync_dist=False)

    def _require_finite(self, name: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise NotFiniteError(f"{name} is not finite in epoch {self.current_epoch}, by step {self.global_step}")


def mean_metric() -> MeanMetric:
    """Give a mean that says NaN when it has met one."""
    return MeanMetric(nan_strategy="disable")


def _problems(dropout: float | None, attention_dropout: float | None, freeze_layers: int) -> list[str]:
    found = [] if dropout is None else outside("--model.dropout", dropout, 0, 0.95)
    found += [] if attention_dropout is None else outside("--model.attention_dropout", attention_dropout, 0, 0.95)
    return found + outside("--model.freeze_layers", freeze_layers, 0, 1000)


def _prepare(encoder: Any, frozen: int, gradient_checkpointing: bool) -> None:
    freeze_layers(encoder, frozen)
    if gradient_checkpointing:
        checkpoint_gradients(encoder)
