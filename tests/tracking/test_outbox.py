import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import NEVER, Tracker

TAGS = {"optuna_study": "first", "optuna_trial": "3"}


class FlakyTracker:
    """What lies between a tracker and MLflow: cut before a call, or after MLflow has taken it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> None:
        self.tracker, self.cut = tracker, ""
        for name in ("start_run", "log_params", "log_metrics", "log_text", "set_status"):
            monkeypatch.setattr(tracker, name, self._through(getattr(tracker, name)))

    def _through(self, call: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            if self.cut == "before":
                raise MlflowException("no route")
            result = call(*arguments, **named)
            if self.cut == "after":
                raise MlflowException("read timed out")
            return result

        return called


@pytest.fixture
def flaky_tracker(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> FlakyTracker:
    return FlakyTracker(monkeypatch, tracker)


@pytest.fixture
def outbox(tracker: Tracker, tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "trial_3", tracker)


def _begin(outbox: Outbox, tracker: Tracker) -> None:
    outbox.write("start_run", experiment_id=tracker.experiment("criteria-first"), name="trial_3", tags=TAGS)


def _epochs(outbox: Outbox, tracker: Tracker) -> list[tuple[int, float]]:
    history = tracker.client.get_metric_history(str(outbox.run_id), "val_metric")
    return sorted((point.step, point.value) for point in history)


def _runs(tracker: Tracker) -> int:
    return len(list(tracker.runs(tracker.experiment("criteria-first"))))


def test_a_trial_writes_what_its_study_sends(tracker: Tracker, outbox: Outbox) -> None:
    _begin(outbox, tracker)
    heard: list[int] = []
    writer = Outbox(outbox.folder, tracker, outbox.run_id, on_write=lambda: heard.append(len(heard)))
    writer.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert (heard, outbox.pending, _epochs(outbox, tracker)) == ([0], True, [])
    assert outbox.send()
    assert (outbox.pending, _epochs(outbox, tracker)) == (False, [(0, 0.5)])


def test_what_is_noted_is_sent_with_what_is_written_next(outbox: Outbox, tracker: Tracker) -> None:
    _begin(outbox, tracker)
    outbox.note("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert (outbox.pending, _epochs(outbox, tracker)) == (True, [])
    outbox.write("log_metrics", metrics={"val_metric": 0.6}, step=1)
    assert (outbox.pending, _epochs(outbox, tracker)) == (False, [(0, 0.5), (1, 0.6)])


def test_what_is_written_is_sent(outbox: Outbox, tracker: Tracker) -> None:
    assert not outbox.begun
    _begin(outbox, tracker)
    outbox.write("log_params", params={"lr": 0.5})
    outbox.write("log_metrics", metrics={"val_metric": 0.25}, step=0)
    outbox.write("set_status", status="FINISHED", tags={"a": "b"})
    run = tracker.client.get_run(str(outbox.run_id))
    assert (run.info.run_name, run.info.status, run.data.params["lr"]) == ("trial_3", "FINISHED", "0.5")
    assert run.data.tags["a"] == "b"
    assert _epochs(outbox, tracker) == [(0, 0.25)]
    assert (outbox.begun, outbox.pending) == (True, False)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_what_mlflow_did_not_take_is_sent_later_in_order_and_once(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker, cut: str
) -> None:
    _begin(outbox, tracker)
    flaky_tracker.cut = cut
    for epoch in range(3):
        outbox.write("log_metrics", metrics={"val_metric": epoch / 4}, step=epoch)
    assert outbox.pending
    flaky_tracker.cut = ""
    assert outbox.send(now=True)
    assert _epochs(outbox, tracker) == [(0, 0.0), (1, 0.25), (2, 0.5)]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_trial_begun_while_mlflow_is_away_gets_one_run(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker, cut: str
) -> None:
    experiment = tracker.experiment("criteria-first")
    flaky_tracker.cut = cut
    outbox.write("start_run", experiment_id=experiment, name="trial_3", tags=TAGS)
    outbox.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert (outbox.begun, outbox.run_id) == (True, None)
    flaky_tracker.cut = ""
    assert Outbox(outbox.folder, tracker).send(now=True)
    assert _runs(tracker) == 1
    assert _epochs(outbox, tracker) == [(0, 0.5)]


def test_away_is_not_asked_again_at_once(
    outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    flaky_tracker.cut = "before"
    outbox.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    flaky_tracker.cut = ""
    outbox.write("log_metrics", metrics={"val_metric": 0.5}, step=1)
    assert outbox.pending
    assert _epochs(outbox, tracker) == []
    tracker.away_since = NEVER
    assert outbox.send()
    assert [record.message.split(" (")[0] for record in caplog.records] == ["MLflow does not answer"]


def test_what_mlflow_refuses_is_said_and_left_out(
    outbox: Outbox, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(outbox, tracker)
    outbox.write("log_params", params={"lr": 0.5})
    outbox.write("log_params", params={"lr": 0.25})
    outbox.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert not outbox.pending
    assert _epochs(outbox, tracker) == [(0, 0.5)]
    assert "MLflow refused log_params" in caplog.text


def test_a_line_torn_by_a_death_is_dropped(outbox: Outbox, tracker: Tracker) -> None:
    _begin(outbox, tracker)
    with (outbox.folder / "journal.jsonl").open("a") as file:
        file.write('{"call": "log_met')
    assert not outbox.pending
    again = Outbox(outbox.folder, tracker)
    assert again.begun
    again.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert _epochs(again, tracker) == [(0, 0.5)]
    lines = (outbox.folder / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["call"] for line in lines] == ["start_run", "log_metrics"]


def test_a_torn_beginning_is_no_beginning(outbox: Outbox) -> None:
    (outbox.folder / "journal.jsonl").write_text('{"call": "start_')
    assert (outbox.begun, outbox.pending) == (False, False)


def test_steps_are_those_written(outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker) -> None:
    _begin(outbox, tracker)
    outbox.write("log_metrics", metrics={"epoch": 0}, step=0)
    flaky_tracker.cut = "before"
    outbox.write("log_metrics", metrics={"epoch": 1}, step=1)
    assert outbox.steps("epoch") == {0, 1}
    assert outbox.steps("other") == set()


def test_the_steps_of_a_lost_journal_are_asked_of_the_run(outbox: Outbox, tracker: Tracker) -> None:
    _begin(outbox, tracker)
    outbox.write("log_metrics", metrics={"epoch": 0}, step=0)
    run_id = outbox.run_id
    outbox.discard()
    again = Outbox(outbox.folder, tracker, run_id)
    assert again.begun
    assert again.steps("epoch") == {0}


def test_only_a_sent_journal_is_closed(outbox: Outbox, tracker: Tracker, flaky_tracker: FlakyTracker) -> None:
    _begin(outbox, tracker)
    flaky_tracker.cut = "before"
    outbox.write("log_text", text="x", name="x.txt")
    outbox.close()
    assert outbox.pending
    flaky_tracker.cut = ""
    outbox.send(now=True)
    outbox.close()
    assert list(outbox.folder.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=8))
def test_whatever_is_cut_every_epoch_arrives_once(
    cuts: list[str], tmp_path_factory: pytest.TempPathFactory, ready_databases: Any
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    tracker = Tracker(ready_databases(folder, "mlflow.db"))
    experiment = tracker.experiment("criteria-first")
    with pytest.MonkeyPatch.context() as patch:
        flaky_tracker = FlakyTracker(patch, tracker)
        for epoch, cut in enumerate(cuts):
            outbox = Outbox(folder / "trial_3", tracker)  # as another process would
            flaky_tracker.cut, tracker.away_since = cut, NEVER
            if epoch == 0:
                outbox.write("start_run", experiment_id=experiment, name="trial_3", tags=TAGS)
            outbox.write("log_metrics", metrics={"val_metric": epoch / 4}, step=epoch)
        flaky_tracker.cut = ""
        assert outbox.send(now=True)
        assert _runs(tracker) == 1
        assert _epochs(outbox, tracker) == [(epoch, epoch / 4) for epoch in range(len(cuts))]
