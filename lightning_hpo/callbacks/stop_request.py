"""Stopping a trial from outside, at the next batch."""

import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["StopRequest", "StopRequestedError"]


class StopRequestedError(Exception):
    """The trial was asked to stop; it is parked, and goes on from its last checkpoint."""


class StopRequest(Callback):
    """Raises `StopRequestedError` at the end of the batch in which SIGTERM came.

    Lightning's own handling of signals leaves a trial without an ending; this one gives it one.
    """

    def __init__(self) -> None:
        self._asked = False

    def listen(self) -> None:
        """Take SIGTERM as the request."""
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def check(self) -> None:
        """Raise if a stop was asked for."""
        if self._asked:
            raise StopRequestedError

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Stop between two training batches."""
        del arguments
        self.check()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop between two validation batches."""
        del trainer, pl_module, arguments
        self.check()
