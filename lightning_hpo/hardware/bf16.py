"""bf16 on a CPU: whether it has it, attention that makes use of it, and an exported network that runs in it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

__all__ = ["attend", "computes_bf16", "is_quick", "quicken_attention", "round_weights"]

_LINEAR = torch.ops.aten.linear.default
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def computes_bf16() -> bool:
    """Whether this CPU computes with bf16 by itself, so that it is quicker than float32."""
    # Older torch does not tell, and is taken for one on an older processor.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def is_quick(query: Tensor) -> bool:
    """Whether `attend` is quicker than torch's fused attention, whose products on a CPU make no use of bf16."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Scaled dot product attention by its formula, in the type that it is given.

    Args:
        query: [B, heads, T, features], as key and value.
        key: What is looked at.
        value: What is taken.
        mask: True where a token is looked at, in a shape that fits [B, heads, T, T]; None: everywhere.
        scaling: Factor of the scores; None: one over the root of the features.
        drop: Drops some of the weights.

    Returns:
        What each token takes, [B, heads, T, features].
    """
    with torch.autocast("cpu", enabled=False):  # it would make the softmax one in float32
        scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        return (drop(weights) if drop else weights) @ value


def quicken_attention(network: fx.GraphModule) -> None:
    """Let an exported network use `attend` where it is quick."""
    for node in network.graph.find_nodes(op="call_function", target=_ATTENTION):
        node.target = _attention
    network.recompile()


def round_weights(network: fx.GraphModule) -> None:
    """Round weights once that autocast would round at each call; nothing else changes, if all calls are in autocast."""
    for node in network.graph.find_nodes(op="get_attr"):
        if node.users and all(user.target is _LINEAR and node is not user.args[0] for user in node.users):
            parameter = network.get_parameter(str(node.target))
            parameter.data = parameter.data.bfloat16()


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
        return attend(query, key, value, attn_mask, options.get("scale"))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)
