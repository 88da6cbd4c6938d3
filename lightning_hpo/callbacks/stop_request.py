"""Stopping a trial from outside, between two batches."""

import signal
import time
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["StopRequest", "StopRequestedError"]


class StopRequestedError(Exception):
    """The trial was asked to stop; it is parked, and goes on from its last checkpoint."""


class StopRequest(Callback):
    """Takes SIGTERM as the request to stop, and raises `StopRequestedError` between two batches of validation.

    Between two batches of training `ResumeCheckpoint` does, once it has written down where they are.
    """

    def __init__(self) -> None:
        self._listens = False
        self._asked_at: float | None = None

    def listen(self) -> None:
        """Take SIGTERM as the request."""
        self._listens = True
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked_at is not None

    def check(self, *, after_s: float = 0.0) -> None:
        """Raise if a stop was asked for.

        Args:
            after_s: Only if it was asked for so many seconds ago.
        """
        if self._asked_at is not None and time.monotonic() - self._asked_at >= after_s:
            raise StopRequestedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal back from Lightning, which would end the training after this batch, whatever is unsaved."""
        del trainer, pl_module
        if self._listens:
            self.listen()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop between two validation batches."""
        del trainer, pl_module, arguments
        self.check()
