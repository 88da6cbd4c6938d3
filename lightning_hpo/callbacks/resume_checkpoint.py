"""Checkpoint that a stopped or killed training resumes from, at the end of an epoch or within one."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from lightning_hpo.callbacks.checkpoint_files import durable_checkpoints, is_whole
from lightning_hpo.callbacks.stop_request import StopRequest
from lightning_hpo.callbacks.validation_steps import at_epoch_end
from lightning_hpo.config.lightning_private import (
    clear_restart_flag,
    close_restarted_epoch,
    dump_checkpoint,
    has_resumable_position,
    logged_values,
    mark_before_validation,
    restart_validation,
    restore_logged_values,
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
    loaders with `state_dict` and `load_state_dict`. With other loaders, training resumes from the end of an epoch, or
    from its last batch.

    A stop in a validation saves the state before it, and training resumes with this validation. Nothing is saved if a
    callback has changed the weights for the validation, or if `val_check_interval` is a time.

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
        self._logged: dict[str, Any] | None = None
        self._before_validation: tuple[dict[str, Any], Tensor] | None = None
        """Checkpoint at the last batch before a validation, which shares its tensors, and sums of its weights."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the position to a checkpoint of this callback, and to no other."""
        if self._pending is None:
            return
        within_epoch = self._pending["within_epoch"]
        checkpoint[_KEY] = self._pending | {"logged": logged_values(trainer, within_epoch=within_epoch)}
        if self._pending["before_validation"]:
            mark_before_validation(checkpoint["loops"])
        if at_epoch_end(trainer):  # the next epoch starts with new iterators
            checkpoint["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the early stop of a finished training; without it, Lightning would train another epoch."""
        state = checkpoint.get(_KEY, {})
        self._within_epoch, trainer.should_stop = state.get("within_epoch", False), state.get("should_stop", False)
        self._logged = state.get("logged")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and correct the position of the loader and the loops after a resume."""
        self._saved = time.monotonic()
        restore_train_loader(trainer)
        close_restarted_epoch(trainer)
        restart_validation(trainer)
        if self._logged is not None:
            restore_logged_values(trainer, self._logged)
            self._logged = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, and grant a stop request."""
        if validates_next(trainer):
            self._keep_state(trainer, pl_module)
            if self._due:
                self._write_before_validation(trainer, pl_module)
            self._stop.check()
        elif not self._due:
            return
        elif not (pl_module.automatic_optimization and has_resumable_position(trainer)):
            self._stop.check()
        elif _accumulates_or_ends(trainer):
            # Wait: a checkpoint holds no gradients, and at the end of the epoch one is saved anyway.
            self._stop.check(after_s=_PATIENCE_S)
        else:
            self._save(trainer, within_epoch=True)
            self._stop.check()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Grant a stop request, and save the state before this validation."""
        if self._stop.requested:
            self._write_before_validation(trainer, pl_module)
            self._stop.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the epoch as validated."""
        self._validated = not trainer.sanity_checking
        self._before_validation = None

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

    def _keep_state(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state before a validation, if training can resume with the validation."""
        held_back = _accumulates_or_ends(trainer) and not at_epoch_end(trainer)
        timed = trainer.val_check_batch is None  # after a resume, Lightning would validate at another time
        resumes = pl_module.automatic_optimization and has_resumable_position(trainer)
        if resumes and not (held_back or timed or trainer.should_stop):
            checkpoint = self._dump(trainer, within_epoch=True, before_validation=True)
            self._before_validation = checkpoint, _sums(pl_module)

    def _write_before_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._before_validation is None:
            return
        (checkpoint, sums), self._before_validation = self._before_validation, None
        if torch.equal(sums, _sums(pl_module)):  # a callback may validate averaged weights
            self._write(trainer, checkpoint, within_epoch=True)

    def _save(self, trainer: Trainer, *, within_epoch: bool) -> None:
        self._write(trainer, self._dump(trainer, within_epoch=within_epoch), within_epoch=within_epoch)

    def _dump(self, trainer: Trainer, *, within_epoch: bool, before_validation: bool = False) -> dict[str, Any]:
        position = {"within_epoch": within_epoch, "before_validation": before_validation}
        self._pending = position | {"should_stop": trainer.should_stop}
        try:
            return dump_checkpoint(trainer)
        finally:
            self._pending = None

    def _write(self, trainer: Trainer, checkpoint: dict[str, Any], *, within_epoch: bool) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with durable_checkpoints(trainer, None if self._within_epoch else self._folder / PREVIOUS):
            trainer.strategy.save_checkpoint(checkpoint, self._folder / LAST)
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


def _sums(module: LightningModule) -> Tensor:
    """Return the sum of each tensor of a module's state."""
    tensors = module.state_dict().values()
    return torch.stack([tensor.sum(dtype=torch.float32).cpu() for tensor in tensors if isinstance(tensor, Tensor)])


def _accumulates_or_ends(trainer: Trainer) -> bool:
    """Return whether gradients are held back for a later batch, or the epoch has no further batch."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    ready = progress.current.ready
    ends = progress.is_last_batch or ready == trainer.num_training_batches
    return ends or ready % trainer.accumulate_grad_batches != 0
