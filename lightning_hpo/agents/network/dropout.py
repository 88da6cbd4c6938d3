"""Fast dropout on a CPU.

On a CPU, torch draws one random number after another for each value. This takes a third of a training step. This module
draws one 64-bit number for four values. Other devices use torch's own dropout.
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
        # Kept apart from the mask: a narrow type such as bf16 would round the factor.
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
    """`torch.nn.Dropout`, but on a CPU the probability is a multiple of 1/65536."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop values of a tensor of any shape and floating point type while training."""
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
    """Compute scaled dot product attention with the signature of transformers.

    This is `attend` on a CPU with dropout or bf16, and torch's attention otherwise. On a CPU, torch has no fused
    attention with dropout, and its fused attention in bf16 is slow.

    `query`, `key` and `value` are [B, heads, T, features]. `attention_mask` is [B, 1, T, T] and true for the tokens to
    attend to; None for all tokens, or in a causal model for those before it. `scaling` is that of the scores; None for
    1 / sqrt(features). `options` are further arguments of some families. With some of them, torch's attention is used.

    Returns:
        Output [B, T, heads, features], and None for the attention weights.
    """
    plain = not any(options.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    if attention_mask is None:
        masked = not _is_causal(module, options.get("is_causal"))
    else:
        masked = attention_mask.dtype == torch.bool
    quick = is_quick(query) or (dropout and query.device.type == "cpu")
    if not quick or query.shape != key.shape or not (plain and masked):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    drop = partial(_dropped, p=dropout) if dropout else None
    return attend(query, key, value, attention_mask, scaling, drop).transpose(1, 2).contiguous(), None


AttentionInterface.register(_ATTENTION, attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def _is_causal(module: nn.Module, given: bool | None) -> bool:
    """Return whether tokens attend to no later ones, as transformers decides it for an attention without a mask."""
    return bool(getattr(module, "is_causal", True) if given is None else given)


def quicken_dropout(network: nn.Module) -> None:
    """Replace torch's dropout by `Dropout` in the whole network, and the attention of encoders by `attention`."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.Dropout:
            network.set_submodule(name, Dropout(module.p, module.inplace).train(module.training))
        if isinstance(module, PreTrainedModel) and module.config._attn_implementation == "sdpa":
            module.set_attn_implementation(_ATTENTION)
