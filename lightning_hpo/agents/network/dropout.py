"""Dropout that costs little on a CPU, for an encoder and its head.

On a CPU torch draws a random number for each value, one after the other: a third of a training step. Here one 64-bit
number is drawn for four values. On any other device everything is torch's own.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lightning_hpo.hardware.bf16 import attend, is_quick

__all__ = ["Dropout", "attention", "quicken_dropout"]

_STEPS = 2**16
_ATTENTION = "sdpa_with_quick_dropout"


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, p: float) -> Tensor:
        dropped = round(p * _STEPS)
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: values.numel()].view(values.shape)
        kept = (drawn >= dropped - _STEPS // 2).to(values.dtype)
        ctx.save_for_backward(kept)
        # Apart from the mask, which could not hold the factor as exactly in a narrow type.
        ctx.factor = _STEPS / (_STEPS - dropped)  # type: ignore[attr-defined]
        return (values * kept).mul_(ctx.factor)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(ctx.factor), None


def _dropped(values: Tensor, p: float) -> Tensor:
    dropped: Tensor = _Drop.apply(values, p)  # type: ignore[no-untyped-call]
    return dropped


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with a probability in steps of 1/65536 where it acts on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop values while training, of a tensor of any shape and floating type."""
        if not (self.training and self.p) or input.device.type != "cpu":
            return super().forward(input)
        return _dropped(input, self.p)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot product attention in transformers' form: torch's own, but where a CPU has a quicker one.

    With dropout torch has no fused one to lose, and in bf16 the fused one is slow.

    Args:
        module: The layer that attends.
        query: [B, heads, T, features], as key and value.
        key: What is looked at.
        value: What is taken.
        attention_mask: [B, 1, T, T], True where a token is looked at; None: everywhere.
        dropout: Dropout of the attention weights.
        scaling: Factor of the scores; None: one over the root of the features.
        options: What some families give beside it; with any of it, everything is torch's own.

    Returns:
        What each token takes [B, T, heads, features], and None for the weights.
    """
    plain = not any(options.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    masked = attention_mask is None or attention_mask.dtype == torch.bool
    quick = is_quick(query) or (dropout and query.device.type == "cpu")
    if not quick or query.shape != key.shape or not (plain and masked):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    drop = partial(_dropped, p=dropout) if dropout else None
    return attend(query, key, value, attention_mask, scaling, drop).transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def quicken_dropout(network: nn.Module) -> None:
    """Put this module's dropout in the place of torch's, in the attention of every encoder in the network, too."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.Dropout:
            network.set_submodule(name, Dropout(module.p, module.inplace).train(module.training))
        if isinstance(module, PreTrainedModel) and module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(_ATTENTION)
