"""Where a training goes on from, after it was stopped or killed: the end of its last epoch, or a place within one."""

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.types import _Stateful
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_hpo.callbacks.stop_request import StopRequest
from lightning_hpo.study_folder import LAST, PARTIAL, PREVIOUS

__all__ = ["ResumeCheckpoint", "find_checkpoint", "is_out_of_memory"]

"""All that may lie in the folder; nobody needs them once the training has ended."""

_KEY = "ResumeCheckpoint"

# Of the ten seconds that a stop may take, so that some are left to write.
_PATIENCE_S = 5.0


class ResumeCheckpoint(Checkpoint):
    """Writes down all that a training needs to go on exactly: with every validated epoch, and within epochs.

    Within an epoch it writes every so often, and when a stop is asked for, which it then grants. There it needs loaders
    that know their place (with `state_dict` and `load_state_dict`); with others, training goes on from an epoch's end.

    Beside the last state it keeps that of the last epoch's end before it, and a kill at any moment leaves one of them
    whole: see `find_checkpoint`.

    As a `Checkpoint` it comes after the other callbacks, so that what is written holds their states of this batch; give
    it after other checkpoints.

    Args:
        folder: Folder of the checkpoint.
        stop: Says when a stop is asked for.
        every_s: Seconds after which the state is written down within an epoch.

    Raises:
        StopRequestedError: If a stop is asked for, as soon as the state is written down; if it cannot be written within
            an epoch, at the end of the batch, and if gradients are being accumulated, after 5 seconds at the latest.
    """

    def __init__(self, folder: str | Path, stop: StopRequest, every_s: float = 600.0) -> None:
        self._folder, self._stop, self._every_s = Path(folder), stop, every_s
        self._written = time.monotonic()
        self._validated = False
        self._within_epoch = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember that the training had been ended early: Lightning would train another epoch."""
        del pl_module
        state = checkpoint.get(_KEY, {})
        self._within_epoch, trainer.should_stop = state.get("within_epoch", False), state.get("should_stop", False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and see to it that loader and loops go on from their place."""
        del pl_module
        self._written = time.monotonic()
        loop = trainer.fit_loop
        # Lightning makes the loader before it has read the checkpoint, and then forgets the loader's place, if the
        # module asks for `estimated_stepping_batches`.
        if loop.restarted_mid_epoch and loop._combined_loader_states_to_load and loop._data_fetcher is not None:
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)
        # With `max_steps` Lightning takes the end of an epoch for a place in it, and would end that epoch once more.
        if loop.restarted_on_epoch_end:
            loop._restarting = loop.epoch_loop.restarting = False
            loop.reset_restart_stage()
            loop.epoch_loop.reset_restart_stage()
            loop.epoch_progress.increment_completed()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the state if it is time to, and grant a stop."""
        del outputs, batch, batch_idx
        if not self._due:
            return
        loop = trainer.fit_loop
        if not pl_module.automatic_optimization or not _knows_its_place(trainer) or _validates_next(trainer):
            # Nothing better than the last checkpoint is in reach: Lightning resumes behind a validation that it would
            # do next, and the first batch of that validation would grant the stop.
            self._stop.check()
        elif loop._should_accumulate() or loop.epoch_loop._num_ready_batches_reached():
            # Gradients are in no checkpoint; and an epoch that is not validated is about to end.
            self._stop.check(after_s=_PATIENCE_S)
        else:
            self._write(trainer, within_epoch=True)
            self._stop.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that the epoch is validated."""
        del pl_module
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the state if the epoch is validated, or if it is time to."""
        del pl_module
        # Still set after a resume within the epoch; Lightning would leave out a plateau's step of the learning rate.
        trainer.fit_loop._restarting = False
        if self._validated or self._due:
            self._write(trainer, within_epoch=False)
        self._validated = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave only an epoch's end when memory runs out: a place within one counts batches, which will be smaller."""
        del trainer, pl_module
        if self._within_epoch and is_out_of_memory(exception):
            (self._folder / LAST).unlink(missing_ok=True)

    @property
    def _due(self) -> bool:
        return self._stop.asked or time.monotonic() - self._written >= self._every_s

    def _write(self, trainer: Trainer, *, within_epoch: bool) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        checkpoint[_KEY] = {"within_epoch": within_epoch, "should_stop": trainer.should_stop}
        if trainer.is_global_zero:
            _replace(self._folder, checkpoint, keep=not self._within_epoch)
        trainer.strategy.barrier(_KEY)
        self._written, self._within_epoch = time.monotonic(), within_epoch


def find_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """Find what a training goes on from, and remove what is damaged or half written.

    Args:
        folder: Folder of a `ResumeCheckpoint`.

    Returns:
        The newest whole checkpoint, None if there is none; and what has to be said of it, empty if all is well.
    """
    (folder / PARTIAL).unlink(missing_ok=True)
    last, previous = folder / LAST, folder / PREVIOUS
    lost = [path for path in (last, previous) if path.exists() and not _is_whole(path)]
    for path in lost:  # or the next checkpoint would be written while nothing whole lies beside it
        path.unlink()
    if last.exists():
        return last, ""
    if previous.exists():
        return previous, f"goes on from an epoch's end: {LAST} is {'damaged' if lost else 'missing'}"
    return None, f"begins anew: {' and '.join(path.name for path in lost)} damaged" if lost else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory; torch has a class for that on a graphics gpu, and on a CPU only words."""
    words = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:  # reading it, torch does not look at the checksums
            return file.testzip() is None
    except (zipfile.BadZipFile, EOFError, NotImplementedError):  # the last: of a method of compression that is none
        return False


def _replace(folder: Path, checkpoint: dict[str, Any], *, keep: bool) -> None:
    """Write beside what is there, and change names only then; Lightning writes where another file system may be."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, last = folder / PARTIAL, folder / LAST
    with partial.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    if keep and last.exists():
        last.replace(folder / PREVIOUS)
    partial.replace(last)
    names = os.open(folder, os.O_RDONLY)
    os.fsync(names)
    os.close(names)


def _knows_its_place(trainer: Trainer) -> bool:
    loader, fetcher = trainer.fit_loop._combined_loader, trainer.fit_loop._data_fetcher
    if loader is None or fetcher is None or not all(isinstance(part, _Stateful) for part in loader.flattened):
        return False
    # Of a loader without a length a batch is fetched ahead, which its place would leave out.
    return fetcher.fetched == trainer.fit_loop.epoch_loop.batch_progress.current.ready


def _validates_next(trainer: Trainer) -> bool:
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
