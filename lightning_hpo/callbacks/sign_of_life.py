"""Signs of life of a training, for the study process and for `status`."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["SignOfLife"]

_EVERY_S = 10.0


class SignOfLife(Callback):
    """Gives a sign of life between two batches of training or validation, at most every ten seconds.

    It also does so when the data are ready, and before the model is logged. The main thread gives the signs, since a
    thread of their own would go on if the training hangs.

    Args:
        file: File whose time of modification is that of the last sign.
        send: Called at each sign.
    """

    def __init__(self, file: Path, send: Callable[[], None]) -> None:
        self._file, self._send = file, send
        self._last = -math.inf

    def _give(self) -> None:
        if time.monotonic() - self._last < _EVERY_S:
            return
        self._last = time.monotonic()
        with contextlib.suppress(OSError):  # a full disk stops a training at its checkpoint
            self._file.touch()
        self._send()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give a sign when the data are ready."""
        self._give()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Give a sign after a training batch."""
        self._give()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Give a sign after a validation batch."""
        self._give()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give a sign before the model is logged."""
        self._give()
