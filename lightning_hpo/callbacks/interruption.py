"""Stop of a command by a signal, between two batches."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.callbacks.stop_request import StopRequestedError
from lightning_hpo.exceptions import StoppedBySignalError

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption(Callback):
    """Stops a command on SIGINT, SIGTERM or SIGHUP: between two batches, or at once if no batch has started.

    It is both the context of the command and a callback of its Trainer. Ctrl-C after the first signal does not wait for
    the end of a batch. Signals that the caller ignores, as `nohup` does, stay ignored.

    Raises:
        StoppedBySignalError: At the end of the context, if a signal has ended it early.
    """

    def __init__(self) -> None:
        self._number = 0
        self._has_batches = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the signal handlers."""
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Restore the signal handlers, and replace whatever the signal has raised."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is not None and self._number:
            raise StoppedBySignalError(self._number) from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._number:
            self._number = number
            if self._has_batches:
                return
        elif number != signal.SIGINT:  # `timeout` and others send the same signal several times
            return
        raise SystemExit(128 + self._number)

    def _start(self) -> None:
        self._has_batches = True

    def _check(self) -> None:
        if self._number:
            raise StopRequestedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the end of a batch from now on."""
        self._start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the end of a batch from now on."""
        self._start()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the end of a batch from now on."""
        self._start()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the end of a batch from now on."""
        self._start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop between two train batches."""
        self._check()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop between two validation batches."""
        self._check()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop between two test batches."""
        self._check()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop between two batches of predictions."""
        self._check()
