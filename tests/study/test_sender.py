import threading
from pathlib import Path
from typing import Any

import pytest

from lightning_hpo.study import sender as sender_module
from lightning_hpo.study.sender import Sender
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.entries import LogMetrics, StartRun
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import NEVER, Tracker
from tests.study_sandbox import wait_for


class Gate:
    """Lets calls of a tracker through only while it is open, or makes them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.open.set()
        log_metrics = tracker.log_metrics

        def through(*arguments: Any) -> None:
            self.reached.set()
            assert self.open.wait(60)
            if self.error is not None:
                raise self.error
            log_metrics(*arguments)

        monkeypatch.setattr(tracker, "log_metrics", through)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> Gate:
    return Gate(monkeypatch, tracker)


@pytest.fixture
def sender(tracker: Tracker) -> Any:
    made = Sender(tracker)
    yield made
    made.stop()


def _outbox(tracker: Tracker, sender: Sender, folder: Path, number: int) -> Outbox:
    outbox = Outbox(TrialFolder(folder / f"trial_{number}"), tracker, on_write=lambda: sender.send(number, outbox))
    outbox.write(StartRun(tracker.experiment("criteria-first"), f"trial_{number}", {"optuna_trial": str(number)}))
    return outbox


def test_entries_are_sent_while_the_caller_goes_on(
    sender: Sender, gate: Gate, tracker: Tracker, tmp_path: Path
) -> None:
    gate.open.clear()
    outbox = _outbox(tracker, sender, tmp_path, 0)
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert gate.reached.wait(60)  # MLflow has not answered, and `write` has returned
    outbox.write(LogMetrics({"val_metric": 0.6}, step=1))
    assert outbox.pending
    gate.open.set()
    assert sender.drain()
    assert tracker.logged_steps(str(outbox.run_id), "val_metric") == {0, 1}
    assert set(sender.take_sent()) == {0}
    assert sender.take_sent() == []


def test_what_mlflow_did_not_accept_is_sent_after_the_pause(
    sender: Sender, gate: Gate, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outboxes = [_outbox(tracker, sender, tmp_path, number) for number in range(3)]
    assert sender.drain()
    sender.take_sent()
    gate.error = ConnectionError("no route")
    for step in range(2):
        for outbox in outboxes:
            outbox.write(LogMetrics({"val_metric": 0.5}, step=step))
    assert not sender.drain()
    assert sender.problem == "does not answer"
    gate.reached.clear()
    outboxes[0].write(LogMetrics({"val_metric": 0.5}, step=2))  # within the pause: no further attempt
    gate.error = None
    monkeypatch.setattr(sender_module, "PAUSE_S", 0.0)
    assert sender.take_sent() == []
    assert not gate.reached.is_set()
    tracker.away_since = NEVER  # the pause is over
    sender._held_until = 0.0
    outboxes[1].write(LogMetrics({"val_metric": 0.5}, step=2))
    wait_for(lambda: not any(outbox.pending for outbox in outboxes))
    assert [tracker.logged_steps(str(outbox.run_id), "val_metric") for outbox in outboxes] == [
        {0, 1, 2},
        {0, 1, 2},
        {0, 1},
    ]


def test_a_job_runs_in_the_thread(sender: Sender) -> None:
    names: list[str] = []
    sender.submit(lambda: names.append(threading.current_thread().name))
    assert sender.drain()
    assert names == ["sender"]


def test_an_error_of_the_disk_is_raised_in_the_loop(
    sender: Sender, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = _outbox(tracker, sender, tmp_path, 0)
    assert sender.drain()

    def full(state: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox._file, "write_state", full)
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert not sender.drain()
    with pytest.raises(OSError, match="No space left"):
        sender.take_sent()


def test_stop_does_not_wait_for_mlflow(sender: Sender, gate: Gate, tracker: Tracker, tmp_path: Path) -> None:
    gate.open.clear()
    outbox = _outbox(tracker, sender, tmp_path, 0)
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert gate.reached.wait(60)
    sender.stop()
    assert not sender.drain()
    assert outbox.pending
    gate.open.set()


def test_drain_shows_what_is_left(
    sender: Sender, gate: Gate, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "_WAIT_S", 0.01)
    for number in range(3):
        _outbox(tracker, sender, tmp_path, number).write(LogMetrics({"val_metric": 0.5}, step=0))
    gate.open.clear()
    seen: list[int] = []

    def look(left: int) -> None:
        seen.append(left)
        gate.open.set()

    _outbox(tracker, sender, tmp_path, 3).write(LogMetrics({"val_metric": 0.5}, step=0))
    assert sender.drain(look)
    assert seen
