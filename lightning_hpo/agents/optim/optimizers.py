"""Optimizers and their parameter groups."""

import importlib.util
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, assert_never

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from lightning_hpo.agents.network.encoder import encoder_layers
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.settings import Settings
from lightning_hpo.exceptions import raise_problems
from lightning_hpo.flag_types import Bounds

__all__ = ["Optim", "OptimName", "make_optimizer"]

OptimName = Literal["adamw", "adamw_8bit", "adafactor", "lion"]


@dataclass(frozen=True)
class Optim(Settings):
    """The optimizer.

    Args:
        name: adamw (Loshchilov and Hutter 2019); adamw_8bit, with a quarter of the optimizer state (Dettmers et al.
            2022; NVIDIA GPUs only, extra `adamw_8bit`); adafactor, with almost no optimizer state (Shazeer and Stern
            2018); or lion (Chen et al. 2023; extra `lion`), which needs a third to a tenth of adamw's lr.
        lr: Peak learning rate. Usual: 1e-5 to 1e-4.
        weight_decay: Decoupled weight decay; biases and norm weights are not decayed. Usual: 0 to 0.1.
        beta1: Decay rate of the running mean of the gradient. Usual: 0.9. Ignored by adafactor.
        beta2: Decay rate of the running mean of the squared gradient (lion: of the gradient). Usual: 0.98 to 0.999.
            Ignored by adafactor.
        eps: Term that avoids a division by zero in adamw and adamw_8bit. Usual: 1e-8 to 1e-6.
        layer_decay: Factor from the learning rate of one layer to that of the layer below it (Clark et al. 2020); 1 is
            the same rate for all. Usual: 0.8 to 1.
    """

    FLAG: ClassVar[str] = "--model.optim"

    name: OptimName = "adamw"
    lr: Annotated[float, Bounds(1e-12, 1e3)] = 3e-5
    weight_decay: Annotated[float, Bounds(0, 10)] = 0.01
    beta1: Annotated[float, Bounds(0, 0.99999)] = 0.9
    beta2: Annotated[float, Bounds(0, 0.9999999)] = 0.999
    eps: Annotated[float, Bounds(1e-16, 1)] = 1e-8
    layer_decay: Annotated[float, Bounds(0.01, 1)] = 1.0

    def missing(self) -> list[str]:
        """Return one line if this machine lacks a package or a GPU that training needs.

        This is not one of the `problems`: a trained model can be loaded on any machine.
        """
        if self.name == "adamw_8bit" and not torch.cuda.is_available():
            return [f"{self.FLAG}.name: got adamw_8bit, which needs an NVIDIA GPU; use adafactor to save memory"]
        package = _PACKAGES.get(self.name)
        if package is None or importlib.util.find_spec(package):
            return []
        return [
            f"{self.FLAG}.name: got {self.name}, which needs {package}; pip install 'lightning-text-hpo[{self.name}]'"
        ]


_PACKAGES = {"adamw_8bit": "bitsandbytes", "lion": "pytorch_optimizer"}


def make_optimizer(network: TextNetwork, optim: Optim) -> Optimizer:
    """Build the optimizer of the parameters that are not frozen.

    Raises:
        InputError: If the optimizer cannot run on this machine.
    """
    raise_problems(optim.missing() or _misplaced(network, optim))
    groups = _groups(network, optim)
    betas = (optim.beta1, optim.beta2)
    made: Optimizer
    # Imported on demand, since each import takes a second.
    if optim.name == "adamw":
        made = AdamW(groups, lr=optim.lr, betas=betas, eps=optim.eps, fused=True)
        # Lightning does not clip gradients if the optimizer unscales them itself. Without this attribute, the gradient
        # scaler of 16-bit training unscales them before they are clipped. (bfloat16 needs no scaler.)
        made._step_supports_amp_scaling = False
    elif optim.name == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        made = AdamW8bit(groups, lr=optim.lr, betas=betas, eps=optim.eps)
    elif optim.name == "lion":
        from pytorch_optimizer import Lion

        made = Lion(groups, lr=optim.lr, betas=betas)
    elif optim.name == "adafactor":
        from transformers.optimization import Adafactor

        # The schedule sets the learning rate: turn off the relative rate of Adafactor.
        made = Adafactor(groups, lr=optim.lr, scale_parameter=False, relative_step=False)  # type: ignore[no-untyped-call]
    else:
        assert_never(optim.name)
    return made


def _misplaced(network: TextNetwork, optim: Optim) -> list[str]:
    kind = next(network.parameters()).device.type
    if optim.name != "adamw_8bit" or kind == "cuda":
        return []
    why = f"which needs an NVIDIA GPU, but the model is on {kind}; use --trainer.accelerator=gpu"
    return [f"{optim.FLAG}.name: got adamw_8bit, {why}"]


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
    """Return the depth of each parameter: 0 for the embeddings, then the layers of the encoder, then the head."""
    layers: list[nn.Module] = encoder_layers(network.encoder)
    depth_of = {id(p): depth for depth, layer in enumerate(layers, start=1) for p in layer.parameters()}
    depth_of |= {id(p): len(layers) + 1 for p in network.head.parameters()}
    return {
        name: depth_of.get(id(parameter), 0 if "embed" in name else len(layers))
        for name, parameter in network.named_parameters()
    }
