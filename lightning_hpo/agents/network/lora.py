"""Low-rank adapters (LoRA): small trainable matrices next to the frozen linear layers of the encoder."""

import importlib.util
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_hpo.agents.network.quantization import dequantize_layer
from lightning_hpo.agents.settings import Settings
from lightning_hpo.flag_types import Bounds

__all__ = ["Lora", "add_adapters", "merge_adapters"]


@dataclass(frozen=True)
class Lora(Settings):
    """Low-rank adapters (LoRA, Hu et al. 2022) on every linear layer of the encoder, which is frozen.

    Adapters on layers that `freeze_layers` freezes are not trained either.

    Args:
        r: Rank of the adapters; 0 trains the encoder itself, without adapters. Usual: 4 to 64. Needs the extra `lora`.
        alpha: Scale of the adapters: their output is multiplied by alpha / r. Usual: r to 2 r.
        dropout: Dropout on the input of the adapters. Usual: 0 to 0.1.
    """

    FLAG: ClassVar[str] = "--model.lora"

    r: Annotated[int, Bounds(0, 4096)] = 0
    alpha: Annotated[float, Bounds(1e-3, 1e5)] = 16.0
    dropout: Annotated[float, Bounds(0, 0.95)] = 0.05

    def problems(self) -> list[str]:
        """Return one line for each value that cannot be used, and for a missing package."""
        found = super().problems()
        if self.r and importlib.util.find_spec("peft") is None:
            found.append(f"{self.FLAG}.r: got {self.r}, which needs peft; pip install 'lightning-text-hpo[lora]'")
        return found


def add_adapters(encoder: PreTrainedModel, lora: Lora) -> None:
    """Add adapters to every linear layer, and freeze all else. Untrained adapters do not change the output."""
    if not lora.r:
        return
    # Imported on demand, since the import takes a second.
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in encoder.modules()),  # GPT-2 has transposed weights
    )
    inject_adapter_in_model(config, encoder)


def merge_adapters(network: nn.Module, lora: Lora) -> nn.Module:
    """Return a copy of the network with its adapters merged into the weights; without adapters, the network itself."""
    if not lora.r:
        return network
    from peft.tuners.lora import LoraLayer

    merged = deepcopy(network)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LoraLayer):
            module.base_layer = dequantize_layer(module.get_base_layer())
            module.merge()
            merged.set_submodule(name, module.get_base_layer())
    return merged
