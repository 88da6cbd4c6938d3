"""Hugging Face encoders: loading, dropout, frozen layers and gradient checkpointing."""

import inspect
import pickle
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

from lightning_hpo.data.hub import WHAT_WORKS, encoder_folder
from lightning_hpo.exceptions import InputError

__all__ = [
    "check_reinit_layers",
    "checkpoint_gradients",
    "encoder_layers",
    "freeze_layers",
    "load_encoder",
    "longest_input",
    "quiet_transformers",
    "reinit_layers",
]

# Names of the dropouts in the configs of the model families. A family has some of each tuple.
_DROPOUTS = ("hidden_dropout_prob", "hidden_dropout", "dropout", "mlp_dropout", "embedding_dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
_NAME = "--model.name"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and warnings of transformers, and restore the previous settings afterwards."""
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


def load_encoder(
    name: str,
    *,
    revision: str | None = None,
    dropout: float | None = None,
    attention_dropout: float | None = None,
) -> PreTrainedModel:
    """Load the weights of an encoder, a hub id or a local folder, in float32 and without its pooler.

    A dropout of None keeps the value of the encoder. Safetensors are preferred. From a `.bin` file, torch reads tensors
    and no other objects.

    Raises:
        InputError: If the encoder does not exist, has other weights than its config describes, or does not have this
            kind of dropout.
    """
    folder = encoder_folder(name, revision)
    with quiet_transformers():
        config = _load_config(name, folder)
        _set_dropout(config, "dropout", _DROPOUTS, dropout)
        _set_dropout(config, "attention_dropout", _ATTENTION_DROPOUTS, attention_dropout)
        encoder, info = _load_weights(name, folder, config)
    missing = [key for key in info["missing_keys"] if "pooler" not in key]
    if missing or info["mismatched_keys"]:
        count = len(missing) + len(info["mismatched_keys"])
        raise InputError(f"{_NAME}: got {name!r}, whose weights lack {count} tensors of the encoder; {WHAT_WORKS}")
    return encoder


def longest_input(encoder: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens of an encoder; None if relative positions set no limit.

    Families such as RoBERTa and MPNet count positions from the id of the padding token on. They take fewer tokens than
    their position table has rows.
    """
    config = encoder.config
    if getattr(config, "position_biased_input", True) is False:
        return None
    positions: int | None = getattr(config, "max_position_embeddings", None)
    for name, table in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return table.num_embeddings - table.padding_idx - 1
    return positions if positions is not None and positions > 0 else None  # XLNet has -1


def _load_config(name: str, folder: Path) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        has_config = (folder / "config.json").is_file()
        why = "whose config.json has no model type that transformers knows" if has_config else "without config.json"
        raise InputError(f"{_NAME}: got {name!r}, {'' if has_config else 'a folder '}{why}; {WHAT_WORKS}") from error
    if type(config) not in MODEL_MAPPING or getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{_NAME}: got {name!r}, which is a {config.model_type} model, not an encoder; {WHAT_WORKS}")
    return config


def _load_weights(name: str, folder: Path, config: PreTrainedConfig) -> tuple[PreTrainedModel, dict[str, Any]]:
    # No head uses the pooler. It would stay untrained.
    kind: Any = MODEL_MAPPING[type(config)]
    taken = inspect.signature(kind).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in taken else {}
    try:
        encoder, info = AutoModel.from_pretrained(
            str(folder),
            config=config,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{_NAME}: got {name!r}, whose weights cannot be read as tensors; {WHAT_WORKS}") from error
    # transformers returns it in eval mode, and Lightning keeps the mode: dropout would stay off.
    return encoder.train(), info


def _set_dropout(config: PreTrainedConfig, flag: str, names: tuple[str, ...], value: float | None) -> None:
    if value is None:
        return
    found = [name for name in names if hasattr(config, name)]
    if not found:
        raise InputError(f"--model.{flag}: got {value}, but {config.model_type} encoders have none; leave it out")
    for name in found:
        setattr(config, name, value)


def encoder_layers(encoder: PreTrainedModel) -> list[nn.Module]:
    """Return the transformer layers from input to output. Layers that share their weights count as one."""
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module)]
    depth = getattr(encoder.config, "num_hidden_layers", None)
    whole = [stack for stack in stacks if len(stack) == depth]
    return list((whole or stacks)[0]) if stacks else []


def freeze_layers(encoder: PreTrainedModel, count: int) -> None:
    """Freeze the embeddings and the first `count` layers. 0 freezes nothing, not even the embeddings.

    Raises:
        InputError: If the encoder has fewer layers.
    """
    layers = encoder_layers(encoder)
    if count > len(layers):
        raise InputError(f"--model.freeze_layers: got {count}, but the encoder has {len(layers)} layers")
    if count:
        above = {id(p) for layer in layers for p in layer.parameters()}
        for name, parameter in encoder.named_parameters():
            if id(parameter) not in above and "embed" in name:
                parameter.requires_grad_(False)
    for layer in layers[:count]:
        layer.requires_grad_(False)


def check_reinit_layers(encoder: PreTrainedModel, count: int, frozen: int) -> None:
    """Check that the last `count` layers exist, and that none of them is among the first `frozen` layers.

    Raises:
        InputError: If not.
    """
    layers = len(encoder_layers(encoder))
    if count > layers:
        raise InputError(f"--model.reinit_layers: got {count}, but the encoder has {layers} layers")
    if count and count + frozen > layers:
        raise InputError(
            f"--model.reinit_layers: got {count} with --model.freeze_layers {frozen}, but the encoder has {layers} "
            f"layers, and re-initialized layers must be trained; use {max(0, layers - frozen)} at most"
        )


def reinit_layers(encoder: PreTrainedModel, count: int, frozen: int = 0) -> None:
    """Re-initialize the last `count` layers as the family does before pretraining (Zhang et al. 2021).

    Args:
        encoder: The encoder.
        count: Number of layers, counted from the output.
        frozen: Number of layers, counted from the input, that will not be trained.

    Raises:
        InputError: If the encoder has fewer layers, or some of them would not be trained.
    """
    check_reinit_layers(encoder, count, frozen)
    layers = encoder_layers(encoder)
    for layer in layers[len(layers) - count :]:
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor._is_hf_initialized = False  # type: ignore[attr-defined] # transformers spares what it has loaded
        layer.apply(encoder._init_weights)


def checkpoint_gradients(encoder: PreTrainedModel) -> None:
    """Recompute activations in the backward pass instead of storing them.

    Raises:
        InputError: If the encoder does not support it.
    """
    if not encoder.supports_gradient_checkpointing:
        kind = encoder.config.model_type
        raise InputError(f"--model.gradient_checkpointing: got true, but {kind} encoders do not support it; use false")
    encoder.config.use_cache = False  # else transformers logs at every step that it turns the cache off
    encoder.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    # Checkpointing without reentry needs no input that requires a gradient. The hook for such inputs would undo
    # freezing and break torch.export.
    encoder.disable_input_require_grads()  # type: ignore[no-untyped-call]
