"""Checkpoint that a stopped or killed training resumes from, at the end of an epoch or within one."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_hpo.callbacks.checkpoint_files import durable_checkpoints, is_whole
from lightning_hpo.callbacks.stop_request import StopRequest
from lightning_hpo.config.lightning_private import (
    clear_restart_flag,
    close_restarted_epoch,
    has_resumable_position,
    restore_train_loader,
    validates_next,
)
from lightning_hpo.study_folder import BEST, LAST, PREVIOUS

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
        try:
            with durable_checkpoints(trainer, None if self._within_epoch else self._folder / PREVIOUS):
                trainer.save_checkpoint(self._folder / LAST, weights_only=False)
        finally:
            self._pending = None
        self._saved, self._within_epoch = time.monotonic(), within_epoch


def find_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """Find the checkpoint to resume from in the folder of a `ResumeCheckpoint`, and remove damaged and partial files.

    A checkpoint that knows a best epoch is of use only with the weights of that epoch, `best.ckpt`.

    Returns:
        The newest whole checkpoint or None, and a notice: empty if `last.ckpt` is used or no file exists.
    """
    last, previous, best = (folder / name for name in (LAST, PREVIOUS, BEST))
    for path in (last, best):
        path.with_name(f"{path.name}.partial").unlink(missing_ok=True)
    damaged = [path for path in (last, previous, best) if path.exists() and not is_whole(path)]
    for path in damaged:  # otherwise the next save could keep a damaged file as the previous one
        path.unlink()
    what = f"damaged {' and '.join(path.name for path in damaged)}" if damaged else ""
    if not best.exists():
        for path in (last, previous):
            if path.exists() and _knows_best(path):
                path.unlink()
                what = what or f"{BEST} is missing"
    if last.exists():
        return last, ""
    if previous.exists():
        return previous, f"resumes from the end of an epoch: {LAST} is {'damaged' if damaged else 'missing'}"
    return None, f"starts from the first epoch: {what}" if what else ""


def _knows_best(path: Path) -> bool:
    """Return whether a checkpoint holds a best epoch of `MLflowModelCheckpoint`. Its tensors are not read."""
    states = torch.load(path, map_location="meta", weights_only=True, mmap=True)["callbacks"].values()
    return any(isinstance(state, dict) and state.get("best_epoch") is not None for state in states)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports a lack of memory; torch has a class for that on GPUs, but not on CPUs."""
    words = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def _accumulates_or_ends(trainer: Trainer) -> bool:
    """Return whether gradients are held back for a later batch, or the epoch has no further batch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    ready = progress.current.ready
    ends = progress.is_last_batch or ready == trainer.num_training_batches
    return ends or ready % trainer.accumulate_grad_batches != 0
