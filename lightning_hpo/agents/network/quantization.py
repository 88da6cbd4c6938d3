"""4-bit weights (QLoRA, Dettmers et al. 2023): an encoder in an eighth of its memory, trained by adapters."""

import importlib.util
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from lightning_hpo.exceptions import InputError

__all__ = ["Quantize", "dequantize_layer", "quantize_layers", "quantize_problems"]

Quantize = Literal["none", "4bit"]

_FLAG = "--model.quantize"


def quantize_problems(quantize: Quantize, *, has_adapters: bool) -> list[str]:
    """Return one line for each thing that 4-bit weights need and that is missing."""
    if quantize != "4bit":
        return []
    found = []
    if not has_adapters:
        found.append(f"{_FLAG}: got 4bit, but 4-bit weights cannot be trained; use adapters, such as --model.lora.r 16")
    if importlib.util.find_spec("bitsandbytes") is None:
        found.append(f"{_FLAG}: got 4bit, which needs bitsandbytes; pip install 'lightning-text-hpo[quantize]'")
    if not torch.cuda.is_available():
        found.append(f"{_FLAG}: got 4bit, which needs an NVIDIA GPU; use none")
    return found


def quantize_layers(encoder: PreTrainedModel) -> None:
    """Store the frozen weights next to the adapters in 4 bits (NF4) as soon as they are moved to a GPU.

    Checkpoints do not hold them: they are those of the encoder, at the commit that the config names.

    Raises:
        InputError: If the encoder has no linear layers with adapters.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit
    from peft.tuners.lora import LoraLayer

    count = 0
    for module in list(encoder.modules()):
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else None
        if type(layer) is nn.Linear:
            stored = Linear4bit(layer.in_features, layer.out_features, False, quant_type="nf4", device="meta")
            stored.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=stored)
            stored.bias = layer.bias
            stored.register_state_dict_post_hook(_leave_out_weight)
            stored.register_load_state_dict_pre_hook(_keep_weight)
            module.base_layer = stored
            count += 1
    if not count:
        raise InputError(f"{_FLAG}: got 4bit, but {encoder.config.model_type} models have no linear layers; use none")


def dequantize_layer(layer: nn.Module) -> nn.Module:
    """Return a layer of `quantize_layers` with float32 weights, and any other layer itself."""
    if not hasattr(layer, "quant_state"):
        return layer
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = layer.weight
    full = dequantize_4bit(weight.data, weight.quant_state) if weight.quant_state is not None else weight.data
    plain = nn.Linear(full.shape[1], full.shape[0], layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(full.float(), requires_grad=False)
    plain.bias = layer.bias  # type: ignore[assignment]
    return plain


def _leave_out_weight(layer: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:  # noqa: ARG001 - torch's
    """Remove the weight and its statistics from a state."""
    for name in [name for name in state if name.startswith(f"{prefix}weight")]:
        del state[name]


def _keep_weight(layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Add the weight of the layer to a state that is loaded, which does not have it."""
    state[f"{prefix}weight"] = layer.weight
