"""Stop of a training by SIGTERM, between two batches."""

import signal
import time
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["StopRequest", "StopRequestedError"]


class StopRequestedError(Exception):
    """The training stopped on request. It can be resumed from its last checkpoint."""


class StopRequest(Callback):
    """Treats SIGTERM as a stop request, which `ResumeCheckpoint` grants after it has saved a checkpoint."""

    def __init__(self) -> None:
        self._listens = False
        self._requested_at: float | None = None

    def listen(self) -> None:
        """Install the signal handler."""
        self._listens = True
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested_at is None:
            self._requested_at = time.monotonic()

    @property
    def requested(self) -> bool:
        """Whether a stop has been requested."""
        return self._requested_at is not None

    def check(self, *, after_s: float = 0.0) -> None:
        """Check for a stop request.

        Raises:
            StopRequestedError: If a stop was requested at least `after_s` seconds ago.
        """
        if self._requested_at is not None and time.monotonic() - self._requested_at >= after_s:
            raise StopRequestedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handler, which would stop after this batch without a checkpoint."""
        if self._listens:
            self.listen()
