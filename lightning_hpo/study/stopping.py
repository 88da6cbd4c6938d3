"""Reasons to stop a study: a signal, the time limit, a disk that cannot be written."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lightning_hpo.study.workers import Workers

__all__ = ["Stopping"]


class Stopping:
    """Stops the running trials and remembers why.

    The first signal asks every trial to stop at its next batch. Ctrl-C after it kills the trials, and once more raises
    KeyboardInterrupt. Other signals are not counted: `timeout`, `systemctl` and a shell that loses its terminal send
    the same one several times.

    Args:
        workers: Processes of the trials.
        timeout: Seconds after which the study stops; None for no limit.
        say: Shows a line to the user.

    Attributes:
        signal: Number of the signal that stopped the study; 0 if there was none.
        over_time: Whether the time limit has passed.
        problem: Why the study cannot continue, such as a full disk; empty if it can.
    """

    def __init__(self, workers: Workers, timeout: float | None, say: Callable[[str], None]) -> None:
        self._workers, self._say = workers, say
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._killed = False
        self.signal = 0
        self.over_time = False
        self.problem = ""

    @property
    def requested(self) -> bool:
        """Whether the study must stop."""
        return bool(self.signal) or self.over_time or bool(self.problem)

    def stop_for(self, problem: str) -> None:
        """Stop the study because of a problem that every further trial would have."""
        self.problem = problem
        self._workers.stop()

    def seconds_left(self) -> float | None:
        """Return the seconds to the time limit, or None without one. Once it has passed, stop the trials."""
        if self._deadline is None or self.over_time:
            return None
        left = self._deadline - time.monotonic()
        if left > 0:
            return left
        self.over_time = True
        self._workers.stop()
        return None

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP within the block; under `nohup`, SIGHUP stays ignored."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self.signal:
            self.signal = number
            self._workers.stop()
            self._say("stopping: the running trials pause at their next batch; press Ctrl-C again to stop at once")
        elif number == signal.SIGINT:
            if self._killed:  # the study process may be waiting for a database; the next command repairs the study
                raise KeyboardInterrupt
            self._killed = True
            self._workers.kill()
