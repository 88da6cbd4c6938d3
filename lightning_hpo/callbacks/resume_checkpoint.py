"""Checkpoint that a stopped or killed training resumes from, at the end of an epoch or within one."""

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_hpo.callbacks.stop_request import StopRequest
from lightning_hpo.config.lightning_private import (
    clear_restart_flag,
    close_restarted_epoch,
    has_resumable_position,
    restore_train_loader,
    validates_next,
)
from lightning_hpo.study_folder import LAST, PARTIAL, PREVIOUS

__all__ = ["ResumeCheckpoint", "find_checkpoint", "is_out_of_memory"]

_KEY = "ResumeCheckpoint"

# A stop may take 10 s: 5 s to wait and 5 s to save.
_PATIENCE_S = 5.0


class ResumeCheckpoint(Checkpoint):
    """Saves all that an exact resume needs, after every validated epoch and within epochs.

    Within an epoch it saves every `every_s` seconds, and on a stop request, which it then grants. This needs train
    loaders with `state_dict` and `load_state_dict`. With other loaders, training resumes from the end of an epoch.

    The folder holds two files, so that a kill at any moment leaves one of them whole (see `find_checkpoint`):

    - `last.ckpt`: the newest state.
    - `previous.ckpt`: the state at the end of the last epoch before it.

    Lightning runs `Checkpoint` callbacks after all others, so the file holds their states of the same batch. List this
    callback after other checkpoint callbacks.

    Args:
        folder: Folder of the checkpoints.
        stop: Source of the stop request.
        every_s: Seconds between two saves within an epoch.

    Raises:
        StopRequestedError: On a stop request, as soon as the state is saved. If it cannot be saved within an epoch,
            after the batch. While gradients are accumulated, after 5 seconds at most.
    """

    def __init__(self, folder: str | Path, stop: StopRequest, every_s: float = 600.0) -> None:
        self._folder, self._stop, self._every_s = Path(folder), stop, every_s
        self._saved = time.monotonic()
        self._validated = False
        self._within_epoch = False
        self._pending: dict[str, bool] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the position to a checkpoint of this callback, and to no other."""
        if self._pending is not None:
            checkpoint[_KEY] = self._pending

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the early stop of a finished training; without it, Lightning would train another epoch."""
        state = checkpoint.get(_KEY, {})
        self._within_epoch, trainer.should_stop = state.get("within_epoch", False), state.get("should_stop", False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and correct the position of the loader and the loops after a resume."""
        self._saved = time.monotonic()
        restore_train_loader(trainer)
        close_restarted_epoch(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, and grant a stop request."""
        if not self._due:
            return
        if not (pl_module.automatic_optimization and has_resumable_position(trainer)) or validates_next(trainer):
            # Do not save: the position cannot be restored, or Lightning would skip the validation that comes next.
            self._stop.check()
        elif _accumulates_or_ends(trainer):
            # Wait: a checkpoint holds no gradients, and at the end of the epoch one is saved anyway.
            self._stop.check(after_s=_PATIENCE_S)
        else:
            self._save(trainer, within_epoch=True)
            self._stop.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the epoch as validated."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the epoch was validated, or if it is due."""
        clear_restart_flag(trainer)
        if self._validated or self._due:
            self._save(trainer, within_epoch=False)
        self._validated = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """On out of memory, delete a checkpoint within an epoch: it counts batches, and their size will change."""
        # A validation that has a batch size of its own gets a smaller one, and the training keeps its own.
        own = trainer.validating and hasattr(trainer.datamodule, "eval_batch_size")  # type: ignore[attr-defined]
        if self._within_epoch and is_out_of_memory(exception) and not own:
            (self._folder / LAST).unlink(missing_ok=True)

    @property
    def _due(self) -> bool:
        return self._stop.requested or time.monotonic() - self._saved >= self._every_s

    def _save(self, trainer: Trainer, *, within_epoch: bool) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._pending = {"within_epoch": within_epoch, "should_stop": trainer.should_stop}
        configured = trainer.strategy.checkpoint_io
        trainer.strategy.checkpoint_io = _DurableCheckpointIO(keep_last=not self._within_epoch)
        try:
            trainer.save_checkpoint(self._folder / LAST, weights_only=False)
        finally:
            trainer.strategy.checkpoint_io, self._pending = configured, None
        self._saved, self._within_epoch = time.monotonic(), within_epoch


class _DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to the disk before it replaces the last one, which may become the previous one."""

    def __init__(self, *, keep_last: bool) -> None:
        self._keep_last = keep_last

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a partial file in the same folder, and rename files only then.

        The parent's temporary file may be on another file system, where a rename is a copy.
        """
        last = Path(path)
        last.parent.mkdir(parents=True, exist_ok=True)
        partial = last.with_name(PARTIAL)
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if self._keep_last and last.exists():
            last.replace(last.with_name(PREVIOUS))
        partial.replace(last)
        names = os.open(last.parent, os.O_RDONLY)
        os.fsync(names)
        os.close(names)


def find_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """Find the checkpoint to resume from in the folder of a `ResumeCheckpoint`, and remove damaged and partial files.

    Returns:
        The newest whole checkpoint or None, and a notice: empty if `last.ckpt` is used or no file exists.
    """
    (folder / PARTIAL).unlink(missing_ok=True)
    last, previous = folder / LAST, folder / PREVIOUS
    damaged = [path for path in (last, previous) if path.exists() and not _is_whole(path)]
    for path in damaged:  # otherwise the next save could keep a damaged file as the previous one
        path.unlink()
    if last.exists():
        return last, ""
    if previous.exists():
        return previous, f"resumes from the end of an epoch: {LAST} is {'damaged' if damaged else 'missing'}"
    names = " and ".join(path.name for path in damaged)
    return None, f"starts from the first epoch: damaged {names}" if damaged else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports a lack of memory; torch has a class for that on GPUs, but not on CPUs."""
    words = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:  # torch.load does not verify the checksums
            return file.testzip() is None
    except (zipfile.BadZipFile, EOFError, NotImplementedError):  # the last: an unknown compression method
        return False


def _accumulates_or_ends(trainer: Trainer) -> bool:
    """Return whether gradients are held back for a later batch, or the epoch has no further batch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    ready = progress.current.ready
    ends = progress.is_last_batch or ready == trainer.num_training_batches
    return ends or ready % trainer.accumulate_grad_batches != 0
