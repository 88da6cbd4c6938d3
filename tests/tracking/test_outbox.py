import json
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.entries import LogConfig, LogMetrics, LogParams, LogText, SetStatus, StartRun
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import NEVER, Tracker

TAGS = {"optuna_study": "first", "optuna_trial": "3"}


class FlakyTracker:
    """A tracker whose connection fails before a call, or after MLflow has accepted it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> None:
        self.tracker, self.cut = tracker, ""
        for name in ("start_run", "log_params", "log_metrics", "log_text", "set_status"):
            monkeypatch.setattr(tracker, name, self._through(getattr(tracker, name)))

    def _through(self, call: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            if self.cut == "before":
                raise MlflowException("API request failed") from requests.ConnectionError("no route")
            result = call(*arguments, **named)
            if self.cut == "after":
                raise MlflowException("API request failed") from requests.ReadTimeout("read timed out")
            return result

        return called


@pytest.fixture
def flaky_tracker(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> FlakyTracker:
    return FlakyTracker(monkeypatch, tracker)


@pytest.fixture
def outbox(tracker: Tracker, tmp_path: Path) -> Outbox:
    return Outbox(TrialFolder(tmp_path / "trial_3"), tracker)


def _begin(outbox: Outbox, tracker: Tracker) -> None:
    outbox.write(StartRun(tracker.experiment("criteria-first"), "trial_3", TAGS))


def _epochs(outbox: Outbox, tracker: Tracker) -> list[tuple[int, float]]:
    history = tracker.client.get_metric_history(str(outbox.run_id), "val_metric")
    return sorted((point.step, point.value) for point in history)


def _runs(tracker: Tracker) -> int:
    return len(list(tracker.runs(tracker.experiment("criteria-first"))))


def test_trial_process_writes_and_study_process_sends(tracker: Tracker, outbox: Outbox) -> None:
    _begin(outbox, tracker)
    sent: list[int] = []
    writer = Outbox(outbox.folder, tracker, outbox.run_id, on_write=lambda: sent.append(len(sent)))
    writer.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert (sent, outbox.pending, _epochs(outbox, tracker)) == ([0], True, [])
    assert outbox.send()
    assert (outbox.pending, _epochs(outbox, tracker)) == (False, [(0, 0.5)])


def test_entries_reach_the_run(outbox: Outbox, tracker: Tracker) -> None:
    assert not outbox.begun
    _begin(outbox, tracker)
    outbox.write(LogParams({"lr": 0.5}))
    outbox.write(LogMetrics({"val_metric": 0.25}, step=0))
    outbox.write(SetStatus("FINISHED", {"a": "b"}))
    run = tracker.client.get_run(str(outbox.run_id))
    assert (run.info.run_name, run.info.status, run.data.params["lr"]) == ("trial_3", "FINISHED", "0.5")
    assert run.data.tags["a"] == "b"
    assert _epochs(outbox, tracker) == [(0, 0.25)]
    assert (outbox.begun, outbox.pending) == (True, False)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_rejected_entries_are_sent_later_in_order_and_once(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker, cut: str
) -> None:
    _begin(outbox, tracker)
    flaky_tracker.cut = cut
    for epoch in range(3):
        outbox.write(LogMetrics({"val_metric": epoch / 4}, step=epoch))
    assert outbox.pending
    flaky_tracker.cut = ""
    assert outbox.send(now=True)
    assert _epochs(outbox, tracker) == [(0, 0.0), (1, 0.25), (2, 0.5)]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_trial_started_while_mlflow_is_away_gets_one_run(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker, cut: str
) -> None:
    experiment = tracker.experiment("criteria-first")
    flaky_tracker.cut = cut
    outbox.write(StartRun(experiment, "trial_3", TAGS))
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert (outbox.begun, outbox.run_id) == (True, None)
    flaky_tracker.cut = ""
    assert Outbox(outbox.folder, tracker).send(now=True)
    assert _runs(tracker) == 1
    assert _epochs(outbox, tracker) == [(0, 0.5)]


def test_unreachable_mlflow_is_not_retried_at_once(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    flaky_tracker.cut = "before"
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    flaky_tracker.cut = ""
    outbox.write(LogMetrics({"val_metric": 0.5}, step=1))
    assert outbox.pending
    assert _epochs(outbox, tracker) == []
    tracker.away_since = NEVER
    assert outbox.send()
    assert [record.message.split(";")[0] for record in caplog.records] == ["MLflow does not answer"]


def test_refused_entry_is_logged_and_skipped(
    outbox: Outbox, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    outbox.write(LogParams({"lr": 0.5}))
    outbox.write(LogParams({"lr": 0.25}))
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert not outbox.pending
    assert _epochs(outbox, tracker) == [(0, 0.5)]
    assert "MLflow refused log_params" in caplog.text
    assert "lr (" in caplog.text


class LockedArtifacts:
    """Artifact folder of a run in whose place a file lies, so that nothing can be written to it."""

    def __init__(self, tracker: Tracker, outbox: Outbox) -> None:
        folder = Path(tracker.client.get_run(str(outbox.run_id)).info.artifact_uri)
        self._file = folder.parent
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text("")

    def unlock(self) -> None:
        self._file.unlink()


def test_metrics_are_sent_while_an_artifact_waits(
    outbox: Outbox, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    locked = LockedArtifacts(tracker, outbox)
    outbox.write(LogConfig({"a": 1}, "a: 1\n"))
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    outbox.write(LogText("x", "x.txt"))
    outbox.write(SetStatus("FINISHED", {}))
    assert (outbox.pending, _epochs(outbox, tracker)) == (True, [(0, 0.5)])
    assert tracker.client.get_run(str(outbox.run_id)).info.status == "FINISHED"
    [line] = [record.message for record in caplog.records]
    assert line.startswith(f"MLflow: cannot write artifacts to {outbox.folder.path.parent}/mlruns/criteria-first/")
    again = Outbox(outbox.folder, tracker)  # as the next command would
    again.close()
    assert again.pending
    locked.unlock()
    assert again.send(now=True)
    assert tracker.text(str(outbox.run_id), "config.yaml") == "a: 1\n"
    assert tracker.text(str(outbox.run_id), "x.txt") == "x"


def test_metrics_are_sent_while_the_server_closes_the_connection_of_an_upload(
    outbox: Outbox, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(*arguments: Any) -> None:
        raise MlflowException("API request failed") from requests.ConnectionError("Connection aborted.")

    _begin(outbox, tracker)
    monkeypatch.setattr(tracker.client, "log_text", reset)
    outbox.write(LogText("x", "x.txt"))
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert (outbox.pending, _epochs(outbox, tracker)) == (True, [(0, 0.5)])


def test_entries_of_a_deleted_run_are_kept_and_sent_after_it_is_restored(
    outbox: Outbox, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    experiment = tracker.experiment("criteria-first")
    tracker.client.delete_experiment(experiment)
    outbox.write(LogParams({"lr": 0.5}))
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert outbox.pending
    [line] = [record.message for record in caplog.records]
    assert f"run {outbox.run_id} or its experiment has been deleted; restore it in MLflow" in line
    tracker.client.restore_experiment(experiment)
    assert outbox.send(now=True)
    assert _epochs(outbox, tracker) == [(0, 0.5)]


def test_restarted_outbox_sends_everything_to_a_new_run(outbox: Outbox, tracker: Tracker) -> None:
    _begin(outbox, tracker)
    outbox.write(LogParams({"lr": 0.5}))
    deleted = str(outbox.run_id)
    tracker.delete_run(deleted)
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert outbox.restart()
    assert outbox.send(now=True)
    assert outbox.run_id != deleted
    assert _epochs(outbox, tracker) == [(0, 0.5)]
    assert tracker.client.get_run(str(outbox.run_id)).data.params == {"lr": "0.5"}


def test_outbox_without_the_start_of_its_run_is_not_restarted(tracker: Tracker, run_id: str, tmp_path: Path) -> None:
    outbox = Outbox(TrialFolder(tmp_path / "trial_3"), tracker, run_id, on_write=lambda: None)
    outbox.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert not outbox.restart()
    assert outbox.run_id == run_id
    assert [entry.metrics for entry in outbox.unsent() if isinstance(entry, LogMetrics)] == [{"val_metric": 0.5}]


def test_deleted_run_delays_only_its_own_entries(
    outbox: Outbox, tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    tracker.delete_run(str(outbox.run_id))
    for step in (0, 1):
        outbox.write(LogMetrics({"val_metric": 0.5}, step=step))
    assert outbox.pending
    assert not tracker.is_away
    assert outbox.problem == f"refused: run {outbox.run_id} or its experiment has been deleted; restore it in MLflow"
    assert [record.message for record in caplog.records] == [
        f"MLflow {outbox.problem}; its entries are kept in {outbox.folder.outbox}"
    ]
    other = Outbox(TrialFolder(tmp_path / "trial_4"), tracker)
    _begin(other, tracker)
    assert not other.pending
    tracker.client.restore_run(str(outbox.run_id))
    assert outbox.send()
    assert _epochs(outbox, tracker) == [(0, 0.5), (1, 0.5)]


def test_incomplete_line_is_dropped(outbox: Outbox, tracker: Tracker) -> None:
    _begin(outbox, tracker)
    with outbox.folder.outbox.open("a") as file:
        file.write('{"call": "log_met')
    assert not outbox.pending
    again = Outbox(outbox.folder, tracker)
    assert again.begun
    again.write(LogMetrics({"val_metric": 0.5}, step=0))
    assert _epochs(again, tracker) == [(0, 0.5)]
    lines = outbox.folder.outbox.read_text().splitlines()
    assert [json.loads(line)["call"] for line in lines] == ["start_run", "log_metrics"]


def test_incomplete_first_line_does_not_start_a_run(outbox: Outbox) -> None:
    outbox.folder.outbox.write_text('{"call": "start_')
    assert (outbox.begun, outbox.pending) == (False, False)


def test_steps_include_unsent_entries(outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker) -> None:
    _begin(outbox, tracker)
    outbox.write(LogMetrics({"epoch": 0}, step=0))
    flaky_tracker.cut = "before"
    outbox.write(LogMetrics({"epoch": 1}, step=1))
    assert outbox.steps("epoch") == {0, 1}
    assert outbox.steps("other") == set()


def test_metrics_of_a_lost_outbox_that_the_run_has_are_not_sent_again(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker
) -> None:
    _begin(outbox, tracker)
    run_id = str(outbox.run_id)
    for step in range(2):
        outbox.write(LogMetrics({"epoch": step, "val_metric": 0.5}, step=step))
    outbox.write(LogMetrics({"epoch": 2}, step=2))  # without the end of the epoch
    outbox.discard()
    again = Outbox(outbox.folder, tracker, run_id)
    assert again.begun
    assert again.steps("epoch") == set()
    flaky_tracker.cut = "before"  # what is asked of the run waits, too
    for step in range(1, 3):
        again.write(LogMetrics({"epoch": step, "val_metric": 0.75}, step=step))
    flaky_tracker.cut = ""
    restarted = Outbox(outbox.folder, tracker, run_id)  # as the next command would
    restarted.write(LogMetrics({"epoch": 3, "val_metric": 0.875}, step=3))
    assert restarted.send(now=True)
    history = {name: tracker.client.get_metric_history(run_id, name) for name in ("epoch", "val_metric")}
    assert sorted(point.step for point in history["epoch"]) == [0, 1, 2, 3]
    assert {point.step: point.value for point in history["val_metric"]} == {0: 0.5, 1: 0.5, 2: 0.75, 3: 0.875}
    assert len(history["val_metric"]) == 4


def test_entries_after_a_deleted_file_of_entries_are_sent(outbox: Outbox, tracker: Tracker) -> None:
    """The file was longer than its successor: the position up to which it was sent means nothing any more."""
    _begin(outbox, tracker)
    run_id = outbox.run_id
    outbox.write(LogText("a long text" * 100, "x.txt"))
    outbox.folder.outbox.unlink()
    again = Outbox(outbox.folder, tracker, run_id)
    again.write(LogMetrics({"epoch": 0}, step=0))
    assert not again.pending
    assert tracker.logged_steps(str(run_id), "epoch") == {0}


def test_close_keeps_an_outbox_with_unsent_entries(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker
) -> None:
    _begin(outbox, tracker)
    flaky_tracker.cut = "before"
    outbox.write(LogText("x", "x.txt"))
    outbox.close()
    assert outbox.pending
    flaky_tracker.cut = ""
    outbox.send(now=True)
    outbox.close()
    assert list(outbox.folder.path.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=8))
def test_every_epoch_arrives_once_whatever_fails(
    cuts: list[str], tmp_path_factory: pytest.TempPathFactory, ready_databases: Any
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    tracker = Tracker(ready_databases(folder, "mlflow.db"))
    experiment = tracker.experiment("criteria-first")
    with pytest.MonkeyPatch.context() as patch:
        flaky_tracker = FlakyTracker(patch, tracker)
        for epoch, cut in enumerate(cuts):
            outbox = Outbox(TrialFolder(folder / "trial_3"), tracker)  # as another process would
            flaky_tracker.cut, tracker.away_since = cut, NEVER
            if epoch == 0:
                outbox.write(StartRun(experiment, "trial_3", TAGS))
            outbox.write(LogMetrics({"val_metric": epoch / 4}, step=epoch))
        flaky_tracker.cut = ""
        assert outbox.send(now=True)
        assert _runs(tracker) == 1
        assert _epochs(outbox, tracker) == [(epoch, epoch / 4) for epoch in range(len(cuts))]


def test_outbox_of_an_earlier_version_is_sent(tracker: Tracker, tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial_3")
    run_id = tracker.start_run(tracker.experiment("criteria-first"), "trial_3", TAGS)
    entries = [
        {"call": "log_params", "params": {"lr": 0.5}},
        {"call": "log_metrics", "metrics": {"val_metric": 0.25}, "step": 0, "time_ms": 1},
        {"call": "set_status", "status": "SCHEDULED", "tags": {"a": "b"}, "time_ms": 2},
    ]
    folder.path.mkdir()
    (folder.path / "journal.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder.path / "journal.json").write_text(json.dumps({"sent": 0, "run_id": run_id}))
    outbox = Outbox(folder, tracker)
    outbox.write(LogMetrics({"val_metric": 0.5}, step=1))
    assert (outbox.run_id, outbox.pending, _epochs(outbox, tracker)) == (run_id, False, [(0, 0.25), (1, 0.5)])
    outbox.close()
    assert list(folder.path.iterdir()) == []
