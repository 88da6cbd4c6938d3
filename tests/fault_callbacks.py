"""Callbacks that inject faults at a known point of a training, for configs to name."""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.callbacks.stop_request import StopRequest


def rehearses(trainer: Trainer) -> bool:
    """Return whether this is the preflight's training, which these faults leave alone."""
    return Path(trainer.default_root_dir).name == "preflight"


class KillOnce(Callback):
    """Kills its own process at the end of an epoch, unless the marker file exists."""

    def __init__(self, marker: str, epoch: int = 1) -> None:
        self.marker, self.epoch = Path(marker), epoch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch and not rehearses(trainer) and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class SignalAtBatch(Callback):
    """Sends signals to its own process at the start of batch 1 of a stage, and appends each batch to a file.

    With the stage `setup`, it sends them before the first batch.
    """

    def __init__(self, stage: str, seen: str, numbers: list[int]) -> None:
        self.stage, self.seen, self.numbers = stage, Path(seen), numbers

    def _start(self, stage: str, batch: int) -> None:
        with self.seen.open("a") as file:
            file.write(f"{stage} {batch}\n")
        if (stage, batch) == (self.stage, 1):
            for number in self.numbers:
                os.kill(os.getpid(), number)
            with self.seen.open("a") as file:
                file.write("sent\n")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._start("setup", 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._start("train", batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start("validation", batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start("test", batch_idx)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._start("predict", batch_idx)


class WaitForSignalOnce(Callback):
    """Creates the marker file at a batch and waits for a stop request, unless the marker file exists."""

    def __init__(
        self, marker: str, epoch: int = 1, batch: int = 0, stage: str = "train", limit_s: float = 60.0
    ) -> None:
        self.marker, self.place, self.limit_s = Path(marker), (stage, epoch, batch), limit_s

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._wait("train", trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._wait("validation", trainer, batch_idx)

    def _wait(self, stage: str, trainer: Trainer, batch: int) -> None:
        if (stage, trainer.current_epoch, batch) != self.place or rehearses(trainer) or self.marker.exists():
            return
        self.marker.touch()
        (stop,) = [callback for callback in trainer.callbacks if isinstance(callback, StopRequest)]  # type: ignore[attr-defined]
        end = time.monotonic() + self.limit_s
        while not stop.requested:
            assert time.monotonic() < end, "no stop was requested"
            time.sleep(0.01)


class HangOnce(Callback):
    """Creates the marker file at a validation batch and hangs, unless the marker file exists."""

    def __init__(self, marker: str, epoch: int = 1) -> None:
        self.marker, self.epoch = Path(marker), epoch

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.current_epoch == self.epoch and not rehearses(trainer) and not self.marker.exists():
            self.marker.touch()
            while True:
                signal.pause()


class NoMemoryAbove(Callback):
    """Raises the out of memory error of CUDA in training batches, or in validation batches, above a size."""

    def __init__(self, size: int, *, in_validation: bool = False) -> None:
        self.size, self.in_validation = size, in_validation

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self.in_validation:
            self._refuse(trainer, batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.in_validation:
            self._refuse(trainer, batch)

    def _refuse(self, trainer: Trainer, batch: Any) -> None:
        size = batch["windows_at_once"] if isinstance(batch, dict) else len(batch[0])
        if size > self.size and not rehearses(trainer):
            raise torch.OutOfMemoryError("injected")


class WaitForFileOnce(Callback):
    """Creates the file `reached` in an epoch and waits until the file `go` exists."""

    def __init__(self, reached: str, go: str, epoch: int = 1, limit_s: float = 120.0) -> None:
        self.reached, self.go, self.epoch, self.limit_s = Path(reached), Path(go), epoch, limit_s

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch != self.epoch or rehearses(trainer):
            return
        self.reached.touch()
        end = time.monotonic() + self.limit_s
        while not self.go.exists():
            assert time.monotonic() < end, "the file `go` was not created"
            time.sleep(0.01)


class FullDiskOnce(Callback):
    """Makes the checkpoint of the first trial go to a full disk, unless the marker file exists."""

    def __init__(self, marker: str, folder: str) -> None:
        self.marker, self.folder = Path(marker), Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not rehearses(trainer) and not self.marker.exists():
            self.marker.touch()
            (self.folder / "last.ckpt.partial").symlink_to("/dev/full")


class LittleMemory(Callback):
    """Limits the memory of its process, and uses some for each sample of a batch."""

    def __init__(self, left_mib: int, mib_a_sample: int) -> None:
        self.left_mib, self.mib_a_sample = left_mib, mib_a_sample

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not rehearses(trainer):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + self.left_mib * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not rehearses(trainer):
            torch.empty(len(batch[0]) * self.mib_a_sample * 2**20, dtype=torch.uint8)
