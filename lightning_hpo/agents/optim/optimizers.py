"""The optimizer: which one, and over what."""

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from lightning_hpo.agents.network.encoder import encoder_layers
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.settings import Settings, outside, raise_problems

__all__ = ["Optim", "OptimName", "make_optimizer"]

OptimName = Literal["adamw", "adamw_8bit", "adafactor", "lion"]


@dataclass(frozen=True)
class Optim(Settings):
    """The optimizer.

    Args:
        name: adamw; adamw_8bit, whose states take a quarter of the memory (NVIDIA gpus, extra `adamw_8bit`);
            adafactor, whose states take next to none (Shazeer and Stern 2018); lion (Chen et al. 2023; extra `lion`),
            which wants a tenth to a third of adamw's lr.
        lr: Highest learning rate.
        weight_decay: Decay of the weights; biases and norms have none.
        beta1: Memory of the mean gradient; adafactor keeps none.
        beta2: Memory of the squared gradient, for lion of the mean one; adafactor has a schedule of its own.
        eps: Added to the root of the squared gradient, for adamw and adamw_8bit.
        layer_decay: Each layer learns at this share of the rate of the layer above it; 1 is the same rate for all.
    """

    FLAG: ClassVar[str] = "--model.optim"

    name: OptimName = "adamw"
    lr: float = 3e-5
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    layer_decay: float = 1.0

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        names = get_args(OptimName)
        found = [] if self.name in names else [f"{self.FLAG}.name: got {self.name!r}; there are {', '.join(names)}"]
        found += outside(f"{self.FLAG}.lr", self.lr, 1e-12, 1e3)
        found += outside(f"{self.FLAG}.weight_decay", self.weight_decay, 0, 10)
        found += outside(f"{self.FLAG}.beta1", self.beta1, 0, 0.99999)
        found += outside(f"{self.FLAG}.beta2", self.beta2, 0, 0.9999999)
        found += outside(f"{self.FLAG}.eps", self.eps, 1e-16, 1)
        return found + outside(f"{self.FLAG}.layer_decay", self.layer_decay, 0.01, 1)

    def missing(self) -> list[str]:
        """Give one line for what training needs and this machine lacks: a package, or a gpu.

        Not among `problems`: a model answers wherever it is loaded, whatever it was trained with.
        """
        if self.name == "adamw_8bit" and not torch.cuda.is_available():
            return [f"{self.FLAG}.name: adamw_8bit runs on NVIDIA gpus only, and there is none; adafactor saves memory"]
        package = _PACKAGES.get(self.name)
        if package is None or importlib.util.find_spec(package):
            return []
        return [f"{self.FLAG}.name: {self.name} needs {package}; pip install 'lightning_hpo[{self.name}]'"]


_PACKAGES = {"adamw_8bit": "bitsandbytes", "lion": "pytorch_optimizer"}


def make_optimizer(network: TextNetwork, optim: Optim) -> Optimizer:
    """Build the optimizer over what is not frozen.

    Raises:
        InputError: If it cannot run here.
    """
    raise_problems(optim.missing() or _misplaced(network, optim))
    groups = _groups(network, optim)
    if optim.name == "adamw":
        return _adamw(groups, optim)
    betas = (optim.beta1, optim.beta2)
    made: Optimizer
    # Each is imported where it is asked for: they take a second.
    if optim.name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        made = AdamW8bit(groups, lr=optim.lr, betas=betas, eps=optim.eps)
    elif optim.name == "lion":
        from pytorch_optimizer import Lion

        made = Lion(groups, lr=optim.lr, betas=betas)
    else:
        from transformers.optimization import Adafactor

        # The rate is the schedule's, not one of its own.
        made = Adafactor(groups, lr=optim.lr, scale_parameter=False, relative_step=False)  # type: ignore[no-untyped-call]
    return made


def _misplaced(network: TextNetwork, optim: Optim) -> list[str]:
    kind = next(network.parameters()).device.type
    if optim.name != "adamw_8bit" or kind == "cuda":
        return []
    where = f"the model is on {kind}; use --trainer.accelerator=gpu"
    return [f"{optim.FLAG}.name: adamw_8bit runs on NVIDIA gpus only, and {where}"]


def _adamw(groups: list[dict[str, Any]], optim: Optim) -> AdamW:
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
