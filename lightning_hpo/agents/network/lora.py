"""Low-rank adapters: small matrices beside the encoder's linear layers, which alone are trained."""

import importlib.util
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from transformers import PreTrainedModel

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["Lora", "add_adapters", "merge_adapters"]


@dataclass(frozen=True)
class Lora(Settings):
    """Low-rank adapters (LoRA, Hu et al. 2022) on every linear layer of the encoder; the rest of it stays as it is.

    The adapters of layers that `freeze_layers` freezes stay as they are, too: they do nothing.

    Args:
        r: Rank of the adapters; 0 is none, and the encoder itself is trained. Needs the extra `lora`.
        alpha: The adapters count alpha / r times.
        dropout: Dropout before the adapters.
    """

    FLAG: ClassVar[str] = "--model.lora"

    r: int = 0
    alpha: float = 16.0
    dropout: float = 0.05

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = outside(f"{self.FLAG}.r", self.r, 0, 4096)
        found += outside(f"{self.FLAG}.alpha", self.alpha, 1e-3, 1e5)
        found += outside(f"{self.FLAG}.dropout", self.dropout, 0, 0.95)
        if self.r and importlib.util.find_spec("peft") is None:
            found.append(f"{self.FLAG}.r: got {self.r}, which needs peft; pip install 'lightning_hpo[lora]'")
        return found


def add_adapters(encoder: PreTrainedModel, lora: Lora) -> None:
    """Put adapters beside every linear layer, and freeze all else; they change nothing until they are trained."""
    if not lora.r:
        return
    # Here, since it takes a second and few want it.
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear")  # type: ignore[arg-type]
    inject_adapter_in_model(config, encoder)


def merge_adapters(network: nn.Module, lora: Lora) -> nn.Module:
    """Give a copy of the network with its adapters added to the weights, or the network itself where it has none."""
    if not lora.r:
        return network
    from peft.tuners.lora import LoraLayer

    merged = deepcopy(network)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            merged.set_submodule(name, module.get_base_layer())
    return merged
