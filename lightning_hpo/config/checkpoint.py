"""Checks of `--ckpt_path` before a command uses the file."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from lightning_hpo.exceptions import InputError

__all__ = ["check_checkpoint", "check_path"]

_WHERE = "`fit` saves checkpoints/best.ckpt in its log folder, and `tune` OUTDIR/STUDY/trial_N/best.ckpt"
# Words that Lightning resolves itself. In a new process, none of them names a checkpoint of an earlier training.
_WORDS_OF_FIT = ("last", "registry")
_EXTRA_STATE = "_extra_state"
"""End of the keys of what modules save besides tensors (`torch.nn.Module.get_extra_state`), in any form."""
_RESUMED = ("optimizer_states", "loops")


def check_path(command: str, path: str | None) -> None:
    """Check that a command has the file of a checkpoint, if it needs one.

    Raises:
        InputError: If there is no such file, or `validate`, `test` or `predict` got none.
    """
    if path is None and command != "fit":
        raise InputError(
            f"--ckpt_path: required: without it, `{command}` would use an untrained model; give a file: {_WHERE}"
        )
    if path is None or (command == "fit" and path.split(":")[0] in _WORDS_OF_FIT) or Path(path).is_file():
        return
    raise InputError(f"--ckpt_path: got {path}, which is no file; {_WHERE}")


def check_checkpoint(path: str, model: LightningModule, *, resumes: bool) -> None:
    """Check that a file is a checkpoint of this module. Its tensors are not read.

    Args:
        path: The file.
        model: The module that will load it.
        resumes: Whether the training is to be resumed, which needs more than weights.

    Raises:
        InputError: If Lightning could not load the file into the module.
    """
    try:
        checkpoint = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"--ckpt_path: {path} cannot be read as a checkpoint with plain values ({type(error).__name__}); {_WHERE}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"--ckpt_path: {path} is no checkpoint of Lightning: it has no `state_dict`; {_WHERE}")
    if model.strict_loading and (difference := _difference(checkpoint["state_dict"], model.state_dict())):
        raise InputError(
            f"--ckpt_path: {path} is of another model{_origin(checkpoint, model)}: {difference}; use the config that "
            "it was trained with"
        )
    if resumes and not all(key in checkpoint for key in _RESUMED):
        raise InputError(
            f"--ckpt_path: {path} holds weights only, from which no training can be resumed; use a checkpoint with "
            "the optimizer's state, such as last.ckpt of a paused trial"
        )


def _difference(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return how the tensors of a checkpoint differ from those of a module; empty if they do not."""
    counts = {
        "it lacks {} tensors of the model": len(own.keys() - saved.keys()),
        "the model lacks {} of its tensors": len(saved.keys() - own.keys()),
        "{} tensors have another shape": sum(
            getattr(own[key], "shape", None) != getattr(saved[key], "shape", None)
            for key in own.keys() & saved.keys()
            if not key.endswith(_EXTRA_STATE)
        ),
    }
    return ", ".join(text.format(count) for text, count in counts.items() if count)


def _origin(checkpoint: Mapping[str, Any], model: LightningModule) -> str:
    """Return the encoder of a checkpoint, if it differs from that of the module."""
    saved, own = (dict(each or {}).get("name") for each in (checkpoint.get("hyper_parameters"), model.hparams))
    return f", with the encoder {saved}" if isinstance(saved, str) and saved != own else ""
