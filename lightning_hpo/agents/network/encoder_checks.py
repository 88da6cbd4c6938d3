"""Checks that an encoder can do what an agent, its head and its data ask of it."""

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_hpo.agents.network.encoder import longest_input
from lightning_hpo.exceptions import InputError

__all__ = ["FirstToken", "check_first_token", "check_ids", "check_length", "check_longest_window", "check_text_encoder"]

FirstToken = Literal["unused", "pooled", "no evidence"]
"""What a head does with the first token: nothing, pool it alone, or take its logits as those of "no evidence"."""

_TOKENS = 4


def check_text_encoder(name: str, encoder: PreTrainedModel) -> None:
    """Check that a model turns token ids into one hidden state for each token, by running it on a few tokens.

    Raises:
        InputError: If it does not: it reads images or sounds, or generates text.
    """
    kind, width = encoder.config.model_type, getattr(encoder.config, "hidden_size", None)
    reason = "which returns no hidden state for each token"
    try:
        hidden: Any = _hidden_states(encoder, _probe(encoder))
    except Exception as error:  # noqa: BLE001 - a model of another kind may raise anything
        hidden, reason = None, f"which fails on token ids ({type(error).__name__})"
    if not isinstance(hidden, Tensor) or hidden.shape != (1, _TOKENS, width):
        raise InputError(f"--model.name: got {name!r}, a {kind} model, {reason}; give the name of a text encoder")


def check_first_token(encoder: PreTrainedModel, use: FirstToken) -> None:
    """Check that the first token reads those after it, for a head that uses it.

    In a causal model such as GPT-2 it does not, so that its hidden state is the same for all posts.

    Raises:
        InputError: If the last token does not change the first hidden state.
    """
    if use == "unused":
        return
    tokens = _probe(encoder)
    other = tokens.clone()
    other[0, -1] = tokens[0, 1]
    if not torch.equal(_hidden_states(encoder, tokens)[:, 0], _hidden_states(encoder, other)[:, 0]):
        return
    kind = encoder.config.model_type
    if use == "pooled":
        raise InputError(
            f"--model.head.pooling: got cls, but in {kind} models, the first token reads no other token, so that all "
            "posts would look the same; use last or mean"
        )
    raise InputError(
        f'--model.name: got a {kind} model, but the first token, which decides "no evidence", reads no other token in '
        "it; use an encoder that reads in both directions, such as roberta-base"
    )


def check_length(encoder: PreTrainedModel, max_length: int) -> None:
    """Check that the position table of an encoder is as long as a window.

    Raises:
        InputError: If it is shorter.
    """
    longest = longest_input(encoder)
    if longest is not None and max_length > longest:
        raise InputError(f"--data.max_length: {max_length} is more than the {longest} tokens that the encoder takes")


def check_longest_window(encoder: PreTrainedModel, max_length: int) -> None:
    """Check that an encoder runs on a window of the full length.

    Raises:
        InputError: If it fails, other than by a lack of memory.
    """
    ids = _probe(encoder)[:, :1].expand(1, max_length)
    try:
        _hidden_states(encoder, ids)
    except (IndexError, RuntimeError, ValueError) as error:
        if "memory" in str(error):  # a GPU may have room for what the CPU has not
            return
        raise InputError(
            f"--data.max_length: got {max_length}, but the encoder fails on so many tokens ({type(error).__name__})"
        ) from error


def check_ids(encoder: PreTrainedModel, token_id: int, type_id: int) -> None:
    """Check that an encoder has embeddings for the largest token id and token type id of its tokenizer.

    Raises:
        InputError: If the tokenizer belongs to another encoder.
    """
    table: Any = encoder.get_input_embeddings()
    rows = getattr(table, "num_embeddings", None)
    if isinstance(rows, int) and token_id >= rows:
        raise InputError(
            f"--model.name: its tokenizer has token ids up to {token_id}, but the encoder has embeddings for {rows}; "
            "use the tokenizer that the encoder was trained with"
        )
    types = getattr(encoder.config, "type_vocab_size", None)
    # An encoder with one type gets no types at all.
    if isinstance(types, int) and 1 < types <= type_id:
        raise InputError(
            f"--model.name: its tokenizer has token type ids up to {type_id}, but the encoder has embeddings for "
            f"{types}; use the tokenizer that the encoder was trained with"
        )


def _probe(encoder: PreTrainedModel) -> Tensor:
    """Return a few different token ids [1, T], without padding, which has no position."""
    padding = getattr(encoder.config, "pad_token_id", None)
    return torch.tensor([[token for token in range(1, _TOKENS + 2) if token != padding][:_TOKENS]])


def _hidden_states(encoder: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Return the hidden states [1, T, H] without dropout. The mode of the encoder and of its parts stays the same."""
    modes = [(part, part.training) for part in encoder.modules()]
    encoder.eval()  # type: ignore[no-untyped-call]
    try:
        with torch.no_grad():
            hidden: Tensor = encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    finally:
        for part, training in modes:
            part.training = training
    return hidden
