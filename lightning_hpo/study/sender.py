"""The thread that sends the entries of a study to MLflow, so that no trial waits for MLflow."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import PAUSE_S, Tracker

__all__ = ["Sender"]

_WAIT_S = 10.0


class Sender:
    """Sends outboxes in a thread of its own, in the order of their trials.

    What MLflow has not accepted is sent again after a pause. All methods but `drain` return at once.

    Args:
        tracker: MLflow's side of the study.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._changed = threading.Condition()
        self._due: dict[int, Outbox] = {}
        self._held: dict[int, Outbox] = {}
        self._held_until = 0.0
        self._jobs: deque[Callable[[], object]] = deque()
        self._sent: deque[int] = deque()
        self._busy = self._draining = self._stopped = False
        self._error: Exception | None = None
        # A daemon: a request that MLflow does not answer must not delay the exit of the process.
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def send(self, number: int, outbox: Outbox) -> None:
        """Send what an outbox holds; while MLflow is away, after the pause.

        Args:
            number: Number of the trial.
            outbox: Its outbox.
        """
        with self._changed:
            self._held.pop(number, None)
            if self._tracker.is_away and not self._draining:
                self._hold(number, outbox)
            else:
                self._due[number] = outbox
            self._wake()

    def submit(self, job: Callable[[], object]) -> None:
        """Call a function in the thread, before what is sent next. It handles the errors of MLflow itself."""
        with self._changed:
            self._jobs.append(job)
            self._wake()

    def take_sent(self) -> list[int]:
        """Return the trials whose outboxes have been sent since the last call.

        Raises:
            Exception: What ended the thread, such as a disk that cannot be written.
        """
        if self._error is not None:
            raise self._error
        return [self._sent.popleft() for _ in range(len(self._sent))]

    def drain(self, on_wait: Callable[[int], object] | None = None, limit_s: float = math.inf) -> bool:
        """Try to send everything now, and wait for it.

        Args:
            on_wait: Called every ten seconds with the number of outboxes that are left.
            limit_s: Longest time to wait, in seconds.

        Returns:
            Whether MLflow has accepted everything.
        """
        end = time.monotonic() + limit_s
        with self._changed:
            self._draining = True
            self._due, self._held = self._held | self._due, {}
            self._wake()
            while self._working and (left := end - time.monotonic()) > 0:
                if not self._changed.wait_for(lambda: not self._working, min(_WAIT_S, left)) and on_wait is not None:
                    on_wait(len(self._due))
            self._draining = False
            return self._error is None and not (self._held or self._due or self._busy)

    @property
    def problem(self) -> str:
        """Why MLflow has not accepted the first outbox that it has not accepted, as a clause."""
        with self._changed:
            return next((outbox.problem for outbox in self._held.values() if outbox.problem), "does not answer")

    def stop(self) -> None:
        """Send nothing any more. A request that MLflow has not answered yet is not waited for."""
        with self._changed:
            self._stopped = True
            self._wake()

    @property
    def _working(self) -> bool:
        return bool(self._due or self._jobs or self._busy) and self._error is None and not self._stopped

    def _wake(self) -> None:
        if self._thread.ident is None and not self._stopped:
            self._thread.start()
        self._changed.notify_all()

    def _hold(self, number: int, outbox: Outbox) -> None:
        if not self._held:
            self._held_until = time.monotonic() + PAUSE_S
        self._held[number] = outbox

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                work()
        except Exception as error:  # noqa: BLE001 - raised again in the thread that runs the study
            self._error = error
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _next(self) -> Callable[[], object] | None:
        """Wait for something to do, and return it; None after `stop`."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not (self._due or self._jobs or self._stopped):
                left = self._held_until - time.monotonic()
                if self._held and left <= 0:
                    self._due, self._held = self._held, {}
                else:
                    self._changed.wait(left if self._held else None)
            self._busy = True
            if self._stopped:
                return None
            if self._jobs:
                return self._jobs.popleft()
            number = min(self._due)
            outbox = self._due.pop(number)
            return lambda: self._send(number, outbox)

    def _send(self, number: int, outbox: Outbox) -> None:
        sent = outbox.send(now=self._draining)
        with self._changed:
            if sent:
                self._sent.append(number)
                return
            if number in self._due:  # an entry was written in the meantime
                return
            self._hold(number, outbox)
            if self._tracker.is_away:  # the others would fail in the same way
                for other, waiting in self._due.items():
                    self._hold(other, waiting)
                self._due.clear()
