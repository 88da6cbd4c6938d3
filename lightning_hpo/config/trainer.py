"""Lightning's Trainer with one more precision, `auto`."""

from typing import Any, Literal

import torch
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch.accelerators import Accelerator

from lightning_hpo.hardware.bf16 import computes_bf16

__all__ = ["Precision", "Trainer", "native_precision"]

_Torch = Literal["16-mixed", "bf16-mixed", "32-true", "16-true", "bf16-true", "64-true"]
_Nvidia = Literal["transformer-engine", "transformer-engine-float16"]
_Short = Literal["16", "bf16", "32", "64", 16, 32, 64]
Precision = Literal["auto", _Torch, _Nvidia, _Short]


class Trainer(LightningTrainer):
    """Trainer of every command.

    Args:
        accelerator: Accelerator, as in Lightning: auto, cpu, gpu, ...
        precision: Any precision of Lightning, or `auto` (bf16-mixed if the device has native bf16, otherwise 32-true).
            Default: 32-true.
        options: All other arguments of Lightning's Trainer.
    """

    def __init__(
        self, *, accelerator: str | Accelerator = "auto", precision: Precision | None = None, **options: Any
    ) -> None:
        chosen = native_precision(accelerator) if precision == "auto" else precision
        super().__init__(accelerator=accelerator, precision=chosen, **options)


def native_precision(accelerator: str | Accelerator) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16-mixed if the device of an accelerator has native bf16, otherwise 32-true."""
    named = str(accelerator) if isinstance(accelerator, str) else type(accelerator).__name__.lower()
    if "cpu" in named or (named == "auto" and not torch.accelerator.is_available()):
        native = computes_bf16()
    else:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if native else "32-true"
