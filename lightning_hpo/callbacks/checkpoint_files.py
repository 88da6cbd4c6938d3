"""Files of checkpoints: durable when they are written, and checked before they are read."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.study_folder import make_folder, open_without_wait, write_whole

__all__ = ["durable_checkpoints", "is_whole", "load_weights"]


@contextmanager
def durable_checkpoints(trainer: Trainer, keep_as: Path | None = None) -> Iterator[None]:
    """Let the Trainer save checkpoints that a kill or a power cut leaves whole (see `write_whole`).

    Args:
        trainer: The Trainer.
        keep_as: Path at which the replaced file is kept.
    """
    configured = trainer.strategy.checkpoint_io
    trainer.strategy.checkpoint_io = _DurableCheckpointIO(keep_as)
    try:
        yield
    finally:
        trainer.strategy.checkpoint_io = configured


class _DurableCheckpointIO(TorchCheckpointIO):
    """Writes a partial file in the same folder, and renames it then.

    The parent's temporary file may be on another file system, where a rename is a copy.
    """

    def __init__(self, keep_as: Path | None) -> None:
        self._keep_as = keep_as

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save a checkpoint."""
        make_folder(Path(path).parent)
        write_whole(Path(path), lambda file: torch.save(checkpoint, file), self._keep_as)


def is_whole(path: Path) -> bool:
    """Return whether the checksums of a checkpoint are right; `torch.load` does not compare them."""
    try:
        with open(path, "rb", opener=open_without_wait) as content, zipfile.ZipFile(content) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):  # the last: an unknown compression method
        return False


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint.

    Raises:
        LightningHpoError: If the file is missing or damaged.
    """
    if not is_whole(path):
        raise LightningHpoError(f"{path}: the checkpoint is {'damaged' if path.exists() else 'missing'}")
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return weights
