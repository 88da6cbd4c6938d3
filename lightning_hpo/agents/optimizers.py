"""The optimizer and its schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_hpo.agents.encoder import encoder_layers
from lightning_hpo.agents.network import TextNetwork
from lightning_hpo.agents.settings import Settings, outside

__all__ = ["Optim", "Schedule", "make_optimizer", "make_schedule"]

_SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Optim(Settings):
    """AdamW.

    Args:
        lr: Highest learning rate.
        weight_decay: Decay of the weights; biases and norms have none.
        beta1: Memory of the mean gradient.
        beta2: Memory of the squared gradient.
        eps: Added to the root of the squared gradient.
        layer_decay: Each layer learns at this share of the rate of the layer above it; 1 is the same rate for all.
    """

    FLAG: ClassVar[str] = "--model.optim"

    lr: float = 3e-5
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    layer_decay: float = 1.0

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = outside(f"{self.FLAG}.lr", self.lr, 1e-12, 1e3)
        found += outside(f"{self.FLAG}.weight_decay", self.weight_decay, 0, 10)
        found += outside(f"{self.FLAG}.beta1", self.beta1, 0, 0.99999)
        found += outside(f"{self.FLAG}.beta2", self.beta2, 0, 0.9999999)
        found += outside(f"{self.FLAG}.eps", self.eps, 1e-16, 1)
        return found + outside(f"{self.FLAG}.layer_decay", self.layer_decay, 0.01, 1)


@dataclass(frozen=True)
class Schedule(Settings):
    """The learning rate over the steps of a training.

    Args:
        name: What follows the warm-up: linear or cosine down to 0, or constant.
        warmup: Share of all steps in which the rate rises from 0, 0 to 0.5.
    """

    FLAG: ClassVar[str] = "--model.schedule"

    name: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        known = self.name in _SCHEDULES
        found = [] if known else [f"{self.FLAG}.name: got {self.name!r}; there are {', '.join(_SCHEDULES)}"]
        return found + outside(f"{self.FLAG}.warmup", self.warmup, 0, 0.5)

    def factor(self, step: int, steps: int) -> float:
        """Give the share of the highest learning rate at a step of `steps`, as transformers' schedules do."""
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return step / warm
        if self.name == "constant":
            return 1.0
        done = min(1.0, (step - warm) / max(1, steps - warm))
        return 1.0 - done if self.name == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def make_optimizer(network: TextNetwork, optim: Optim) -> AdamW:
    """Build AdamW over what is not frozen."""
    groups = _groups(network, optim)
    optimizer = AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True)
    # Lightning refuses to clip gradients of an optimizer that could unscale them itself. This one need not: with the
    # mark off, the scaler of 16-bit training (bfloat16 has none) unscales them before they are clipped.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def _groups(network: TextNetwork, optim: Optim) -> list[dict[str, Any]]:
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    depth_of = _depths(network)
    top = max(depth_of.values())
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = optim.layer_decay ** (top - depth_of[name])
        decays = parameter.ndim > 1  # biases and norms are vectors
        decay = optim.weight_decay if decays else 0.0
        group = groups.setdefault((scale, decays), {"params": [], "lr": optim.lr * scale, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def _depths(network: TextNetwork) -> dict[str, int]:
    """Number the parameters by layer: the embeddings 0, the encoder's layers from 1, the head last."""
    layers: list[nn.Module] = encoder_layers(network.encoder)
    depth_of = {id(p): depth for depth, layer in enumerate(layers, start=1) for p in layer.parameters()}
    found = {}
    for name, parameter in network.named_parameters():
        if name.startswith("head."):
            found[name] = len(layers) + 1
        else:
            found[name] = depth_of.get(id(parameter), 0 if "embed" in name else len(layers))
    return found


def make_schedule(optimizer: Optimizer, schedule: Schedule, steps: Callable[[], int]) -> LambdaLR:
    """Build the schedule.

    Args:
        optimizer: Whose rates are scheduled.
        schedule: Which one.
        steps: Gives the number of steps of the training; asked after the first step, when the loader is there.
            Lightning's `estimated_stepping_batches` would make the loader here, and then drop its state on resuming
            (pytorch-lightning#20550).
    """

    def factor(step: int) -> float:
        if step == 0:
            return 0.0 if schedule.warmup else 1.0
        return schedule.factor(step, steps())

    return LambdaLR(optimizer, factor)
