"""Any Hugging Face encoder: loaded quietly and from safetensors alone, with its dropout and its layers as asked for."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from lightning_hpo.data.hub import local_files_only
from lightning_hpo.exceptions import InputError

__all__ = [
    "checkpoint_gradients",
    "encoder_layers",
    "freeze_layers",
    "load_encoder",
    "longest_input",
    "quiet_transformers",
]

# Every family names its dropouts in its own way; a family has some names of each tuple.
_DROPOUTS = ("hidden_dropout_prob", "hidden_dropout", "dropout", "mlp_dropout", "embedding_dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer")
_NAME = "--model.name"
_WANTED = "give a hub id such as roberta-base, or a folder with config.json, model.safetensors and a fast tokenizer"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and remarks off the display, and give back what was set before."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_encoder(name: str, *, dropout: float | None = None, attention_dropout: float | None = None) -> PreTrainedModel:
    """Load an encoder's weights in float32, without its pooler.

    Args:
        name: Hub id or folder.
        dropout: Dropout of the hidden layers; None keeps the encoder's own.
        attention_dropout: Dropout of the attention weights; None keeps the encoder's own.

    Raises:
        InputError: If there is no such encoder, it has no safetensors, its weights do not fit, or it has no such
            dropout.
    """
    with quiet_transformers():
        config = _load_config(name)
        _set_dropout(config, "dropout", _DROPOUTS, dropout)
        _set_dropout(config, "attention_dropout", _ATTENTION_DROPOUTS, attention_dropout)
        encoder, info = _load_weights(name, config)
    missing = [key for key in info["missing_keys"] if "pooler" not in key]
    if missing or info["mismatched_keys"]:
        count = len(missing) + len(info["mismatched_keys"])
        raise InputError(f"{_NAME}: {count} tensors of the encoder are not in the weights of {name!r}; {_WANTED}")
    return encoder


def longest_input(config: PreTrainedConfig) -> int | None:
    """Most tokens that an encoder takes; None where its positions are relative and set no end.

    RoBERTa's kin count positions from the padding token's id on, so theirs are two fewer than the config says.
    """
    if getattr(config, "position_biased_input", True) is False:
        return None
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= config.pad_token_id + 1
    return positions


def _load_config(name: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            name, trust_remote_code=False, local_files_only=local_files_only(name)
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{_NAME}: {_why_no_config(name)}; {_WANTED}") from error
    if type(config) not in MODEL_MAPPING or getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{_NAME}: {name!r} is a {config.model_type} model, not an encoder; {_WANTED}")
    return config


def _why_no_config(name: str) -> str:
    folder = Path(name)
    if not name or not folder.is_dir():
        return f"{name!r} is no folder, and the Hugging Face hub gave no such encoder"
    if not (folder / "config.json").is_file():
        return f"the folder {name!r} holds no config.json"
    return f"config.json in {name!r} names no kind of encoder that transformers knows"


def _load_weights(name: str, config: PreTrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    # The pooler reads one token through a layer of its own that no head here uses: left in, it would be trained never.
    kind: Any = MODEL_MAPPING[type(config)]
    taken = inspect.signature(kind).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in taken else {}
    try:
        encoder, info = AutoModel.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=local_files_only(name),
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{_NAME}: no weights could be read from {name!r} as safetensors; {_WANTED}") from error
    # It comes in eval mode, and Lightning leaves modes alone: no dropout would ever act.
    return encoder.train(), info


def _set_dropout(config: PreTrainedConfig, flag: str, names: tuple[str, ...], value: float | None) -> None:
    if value is None:
        return
    found = [name for name in names if hasattr(config, name)]
    if not found:
        raise InputError(f"--model.{flag}: got {value}, but a {config.model_type} encoder has none; leave it out")
    for name in found:
        setattr(config, name, value)


def encoder_layers(encoder: PreTrainedModel) -> list[nn.Module]:
    """Give the transformer layers, from the input to the output; layers that share their weights count as one."""
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module)]
    depth = getattr(encoder.config, "num_hidden_layers", None)
    whole = [stack for stack in stacks if len(stack) == depth]
    return list((whole or stacks)[0]) if stacks else []


def freeze_layers(encoder: PreTrainedModel, count: int) -> None:
    """Freeze the embeddings and the first layers; 0 freezes nothing, not even the embeddings.

    Raises:
        InputError: If the encoder has fewer layers.
    """
    layers = encoder_layers(encoder)
    if count > len(layers):
        raise InputError(f"--model.freeze_layers: got {count}, but the encoder has {len(layers)} layers to freeze")
    if count:
        above = {id(p) for layer in layers for p in layer.parameters()}
        for name, parameter in encoder.named_parameters():
            if id(parameter) not in above and "embed" in name:
                parameter.requires_grad_(False)
    for layer in layers[:count]:
        layer.requires_grad_(False)


def checkpoint_gradients(encoder: PreTrainedModel) -> None:
    """Make the backward pass compute the activations again instead of keeping them.

    Raises:
        InputError: If the encoder cannot do so.
    """
    if not encoder.supports_gradient_checkpointing:
        kind = encoder.config.model_type
        raise InputError(f"--model.gradient_checkpointing: a {kind} encoder cannot do it; leave it false")
    encoder.config.use_cache = False  # or transformers says at every step that it sets it
    encoder.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    # This kind of checkpointing needs no inputs that ask for a gradient: the hook for them would undo freezing, and
    # get in the way of torch.export.
    encoder.disable_input_require_grads()  # type: ignore[no-untyped-call]
