"""Training of an agent: loss of a batch, class weights, optimizer."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_hpo.agents.evaluation import Batch, EvaluatedModule, mean_metric
from lightning_hpo.agents.losses import Loss, class_weights
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.optim.optimizers import Optim, make_optimizer
from lightning_hpo.agents.optim.schedules import Schedule, make_schedule, training_steps
from lightning_hpo.agents.pair_decoding import batch_logits
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError

__all__ = ["TrainedModule"]

# Reading a number from a GPU waits for the GPU. A sum keeps a NaN, so a check from time to time is enough.
_STEPS_BETWEEN_CHECKS = 50


class TrainedModule(EvaluatedModule):
    """Base of a module that trains a network on windows.

    Args:
        compile: Whether training runs the network through torch.compile.

    Attributes:
        network: The network, which the subclass sets, as all other attributes.
        optim: Settings of the optimizer.
        schedule: Settings of the learning rate schedule.
        loss: Settings of the loss.
    """

    network: nn.Module
    optim: Optim
    schedule: Schedule
    loss: Loss

    def __init__(self, *, compile: bool) -> None:
        super().__init__()
        # Metrics instead of Lightning's own sums, which are lost when a training resumes within an epoch.
        self._train_loss, self._augmented, self._unaugmentable = mean_metric(), mean_metric(), mean_metric()
        self._class_weights: Tensor | None = None
        self._compile = compile
        self._compiled: Callable[..., Tensor] | None = None

    @abstractmethod
    def positive_windows(self, batch: Batch) -> Tensor:
        """Return a mask [B] of the training windows with the criterion or its evidence."""

    def logits(self, batch: Batch) -> Tensor:
        """Run the network and return its logits in float32, whatever the precision of the Trainer."""
        run = self._compiled if self._compiled is not None and self.training else self.network
        return batch_logits(run, batch, batch.get("windows_at_once", len(batch["input_ids"])))

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of a batch."""
        return self.logits(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss over the windows."""
        losses, counted = self.window_losses(self.logits(batch), batch)
        if self._class_weights is not None:
            losses = losses * self._class_weights[self.positive_windows(batch).long()]
        loss = losses.sum() / counted.sum().clamp(min=1)
        # One value for each window, since `mean_metric` takes no weights.
        self._train_loss.update(loss.detach().expand(len(losses)))
        self.log("train_loss", self._train_loss, on_step=False, on_epoch=True)
        for name, share in (("augmented", self._augmented), ("unaugmentable", self._unaugmentable)):
            if name in batch:
                share.update(batch[name].float())
                self.log(name, share, on_step=False, on_epoch=True)
        if loss.device.type == "cpu" or (batch_idx + 1) % _STEPS_BETWEEN_CHECKS == 0:
            self.require_finite("train_loss", self._train_loss.mean_value)
        return loss * self._accumulation_factor(batch_idx)

    def _accumulation_factor(self, batch_idx: int) -> float:
        """Return by what to multiply a loss so that the last step of an epoch is the mean of its batches, too.

        Lightning divides each loss by `accumulate_grad_batches`, also if fewer batches are left for the step.
        """
        wanted = self.trainer.accumulate_grad_batches
        left = self.trainer.num_training_batches - batch_idx // wanted * wanted
        return max(1.0, wanted / left)

    def on_fit_start(self) -> None:
        """Compile the network and compute the class weights, if the flags request it."""
        if self._compile:
            # The function, since compiling the module renames its parameters in checkpoints. Dynamic: for all lengths.
            self._compiled = torch.compile(self.network.forward, dynamic=True)
        if self.loss.balance != "none":
            counts = getattr(self.trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
            if counts is None:
                raise InputError(
                    f"--model.loss.balance: got {self.loss.balance}, but the data module has no class_counts; use none"
                )
            self._class_weights = class_weights(self.loss.balance, counts).to(self.device)

    def on_train_epoch_start(self) -> None:
        """Reset the means of the last epoch, or those that a checkpoint has restored."""
        for metric in self._train_means:
            metric.reset()

    def on_train_epoch_end(self) -> None:
        """Check that the loss was finite and that the augmentation changed samples."""
        self.require_finite("train_loss", self._train_loss.mean_value)
        augmentation = getattr(self.trainer.datamodule, "aug", None)  # type: ignore[attr-defined]
        if isinstance(augmentation, Augmentation):
            augmentation.require_effect(float(self._augmented.compute()), float(self._augmented.weight))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the means of the unfinished epoch, except in a checkpoint with weights only."""
        if "optimizer_states" in checkpoint:
            checkpoint["train_means"] = [metric.metric_state for metric in self._train_means]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the means of the unfinished epoch."""
        for metric, states in zip(self._train_means, checkpoint.get("train_means", ()), strict=False):
            for name, value in states.items():
                setattr(metric, name, value.to(metric.device))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, and the schedule that advances with each optimizer step."""
        if not isinstance(self.network, TextNetwork):
            raise TypeError(f"a {type(self.network).__name__} cannot be trained; only the agent's own network can")
        optimizer = make_optimizer(self.network, self.optim)
        schedule = make_schedule(optimizer, self.schedule, lambda: training_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _train_means(self) -> tuple[MeanMetric, ...]:
        return self._train_loss, self._augmented, self._unaugmentable
