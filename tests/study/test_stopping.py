import os
import signal
import time
from typing import Any, cast

import pytest

from lightning_hpo.study.stopping import Stopping
from lightning_hpo.study.workers import Workers


class RecordingWorkers:
    """Records the calls that stop processes."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def stop(self) -> None:
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append("kill")


@pytest.fixture
def workers() -> RecordingWorkers:
    return RecordingWorkers()


@pytest.fixture
def lines() -> list[str]:
    return []


def _stopping(workers: RecordingWorkers, lines: list[str], timeout: float | None = None) -> Stopping:
    return Stopping(cast(Workers, workers), timeout, lines.append)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_stops_then_ctrl_c_kills_and_interrupts(
    workers: RecordingWorkers, lines: list[str], number: signal.Signals
) -> None:
    stopping = _stopping(workers, lines)
    before = signal.getsignal(number)
    with stopping.on_signals():
        os.kill(os.getpid(), number)
        assert (workers.calls, stopping.requested, stopping.signal) == (["stop"], True, number)
        os.kill(os.getpid(), signal.SIGINT)
        assert workers.calls == ["stop", "kill"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stopping.signal == number
    assert lines == ["stopping: the running trials pause at their next batch; press Ctrl-C again to stop at once"]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_that_is_sent_several_times_stops_once(
    workers: RecordingWorkers, lines: list[str], number: signal.Signals
) -> None:
    with _stopping(workers, lines).on_signals():
        for _ in range(4):  # `timeout` sends its signal to the process and to the group
            os.kill(os.getpid(), number)
    assert (workers.calls, len(lines)) == (["stop"], 1)


def test_nohup_keeps_sighup_ignored(workers: RecordingWorkers, lines: list[str]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stopping = _stopping(workers, lines)
        with stopping.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert (stopping.requested, signal.getsignal(signal.SIGHUP)) == (False, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_time_limit_stops_once(workers: RecordingWorkers, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    stopping = _stopping(workers, lines, timeout=60.0)
    left: Any = stopping.seconds_left()
    assert 0 < left <= 60.0
    monkeypatch.setattr(time, "monotonic", lambda: now + 61.0)
    assert [stopping.seconds_left(), stopping.seconds_left()] == [None, None]
    assert (workers.calls, stopping.over_time, stopping.requested) == (["stop"], True, True)


def test_no_time_limit_waits_without_limit(workers: RecordingWorkers, lines: list[str]) -> None:
    stopping = _stopping(workers, lines)
    assert (stopping.seconds_left(), stopping.requested) == (None, False)


def test_problem_stops_the_trials(workers: RecordingWorkers, lines: list[str]) -> None:
    stopping = _stopping(workers, lines)
    stopping.stop_for("cannot write: No space left on device")
    assert (workers.calls, stopping.requested, stopping.signal) == (["stop"], True, 0)
