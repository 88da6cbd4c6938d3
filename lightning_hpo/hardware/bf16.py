"""bf16 on a CPU: detection, fast attention, and exported networks that run in bf16."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

__all__ = ["allow_bf16", "attend", "computes_bf16", "is_quick", "round_weights"]

_LINEAR = torch.ops.aten.linear.default
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_MASKED_FILL = torch.ops.aten.masked_fill.Scalar
_ASSERTION = torch.ops.aten._assert_tensor_metadata.default


def computes_bf16() -> bool:
    """Return whether this CPU has bf16 instructions, so that bf16 is faster than float32."""
    # Older versions of torch do not report capabilities. They are treated as if the CPU had no bf16.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def is_quick(query: Tensor) -> bool:
    """Return whether `attend` is faster than torch's fused attention, which does not use bf16 instructions on a CPU."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Compute unfused scaled dot product attention in the type of its inputs.

    Args:
        query: [B, heads, T, features].
        key: Same shape as `query`.
        value: Same shape as `query`.
        mask: True for the tokens to attend to, broadcastable to [B, heads, T, T]; None for all tokens.
        scaling: Scale of the scores; None for 1 / sqrt(features).
        drop: Dropout of the attention weights.

    Returns:
        Output [B, heads, T, features].
    """
    with torch.autocast("cpu", enabled=False):  # autocast would compute the softmax in float32
        scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        return (drop(weights) if drop else weights) @ value


def allow_bf16(network: fx.GraphModule) -> None:
    """Make an exported network run under autocast in bf16, with `attend` where it is faster.

    The export fixes what depends on the type: that tensors are float32, and the lowest number, with which DeBERTa masks
    tokens.
    """
    for node in network.graph.find_nodes(op="call_function", target=_ATTENTION):
        node.target = _attention
    for node in network.graph.find_nodes(op="call_function", target=_MASKED_FILL):
        node.target = _masked_fill
    for node in network.graph.find_nodes(op="call_function", target=_ASSERTION):
        network.graph.erase_node(node)
    network.recompile()


def round_weights(network: fx.GraphModule) -> None:
    """Round once the weights that autocast would round at each call. Results under autocast stay the same."""
    for node in network.graph.find_nodes(op="get_attr"):
        if node.users and all(user.target is _LINEAR and node is not user.args[0] for user in node.users):
            parameter = network.get_parameter(str(node.target))
            parameter.data = parameter.data.bfloat16()


def _masked_fill(values: Tensor, mask: Tensor, value: float) -> Tensor:
    if values.is_floating_point():
        value = max(value, torch.finfo(values.dtype).min)
    return values.masked_fill(mask, value)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    plain = not dropout_p and not is_causal and not options.get("enable_gqa")
    if plain and is_quick(query) and (attn_mask is None or attn_mask.dtype == torch.bool):
        key, value = key.to(query.dtype), value.to(query.dtype)  # autocast would do so
        return attend(query, key, value, attn_mask, options.get("scale"))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)
