import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from lightning_hpo.journal import Journal
from lightning_hpo.tracking import NEVER, Tracker

TAGS = {"optuna_study": "first", "optuna_trial": "3"}


class Cable:
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
def cable(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> Cable:
    return Cable(monkeypatch, tracker)


@pytest.fixture
def journal(tracker: Tracker, tmp_path: Path) -> Journal:
    return Journal(tmp_path / "trial_3", tracker)


def _begin(journal: Journal, tracker: Tracker) -> None:
    journal.write("start_run", experiment_id=tracker.experiment("criteria-first"), name="trial_3", tags=TAGS)


def _epochs(journal: Journal, tracker: Tracker) -> list[tuple[int, float]]:
    history = tracker.client.get_metric_history(str(journal.run_id), "val_metric")
    return sorted((point.step, point.value) for point in history)


def _runs(tracker: Tracker) -> int:
    return len(list(tracker.runs(tracker.experiment("criteria-first"))))


def test_a_trial_writes_what_its_study_sends(tracker: Tracker, journal: Journal) -> None:
    _begin(journal, tracker)
    heard: list[int] = []
    writer = Journal(journal.folder, tracker, journal.run_id, on_write=lambda: heard.append(len(heard)))
    writer.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert (heard, journal.pending, _epochs(journal, tracker)) == ([0], True, [])
    assert journal.send()
    assert (journal.pending, _epochs(journal, tracker)) == (False, [(0, 0.5)])


def test_what_is_noted_is_sent_with_what_is_written_next(journal: Journal, tracker: Tracker) -> None:
    _begin(journal, tracker)
    journal.note("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert (journal.pending, _epochs(journal, tracker)) == (True, [])
    journal.write("log_metrics", metrics={"val_metric": 0.6}, step=1)
    assert (journal.pending, _epochs(journal, tracker)) == (False, [(0, 0.5), (1, 0.6)])


def test_what_is_written_is_sent(journal: Journal, tracker: Tracker) -> None:
    assert not journal.begun
    _begin(journal, tracker)
    journal.write("log_params", params={"lr": 0.5})
    journal.write("log_metrics", metrics={"val_metric": 0.25}, step=0)
    journal.write("set_status", status="FINISHED", tags={"a": "b"})
    run = tracker.client.get_run(str(journal.run_id))
    assert (run.info.run_name, run.info.status, run.data.params["lr"]) == ("trial_3", "FINISHED", "0.5")
    assert run.data.tags["a"] == "b"
    assert _epochs(journal, tracker) == [(0, 0.25)]
    assert (journal.begun, journal.pending) == (True, False)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_what_mlflow_did_not_take_is_sent_later_in_order_and_once(
    journal: Journal, tracker: Tracker, cable: Cable, cut: str
) -> None:
    _begin(journal, tracker)
    cable.cut = cut
    for epoch in range(3):
        journal.write("log_metrics", metrics={"val_metric": epoch / 4}, step=epoch)
    assert journal.pending
    cable.cut = ""
    assert journal.send(now=True)
    assert _epochs(journal, tracker) == [(0, 0.0), (1, 0.25), (2, 0.5)]


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_trial_begun_while_mlflow_is_away_gets_one_run(
    journal: Journal, tracker: Tracker, cable: Cable, cut: str
) -> None:
    experiment = tracker.experiment("criteria-first")
    cable.cut = cut
    journal.write("start_run", experiment_id=experiment, name="trial_3", tags=TAGS)
    journal.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert (journal.begun, journal.run_id) == (True, None)
    cable.cut = ""
    assert Journal(journal.folder, tracker).send(now=True)
    assert _runs(tracker) == 1
    assert _epochs(journal, tracker) == [(0, 0.5)]


def test_away_is_not_asked_again_at_once(
    journal: Journal, tracker: Tracker, cable: Cable, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(journal, tracker)
    cable.cut = "before"
    journal.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    cable.cut = ""
    journal.write("log_metrics", metrics={"val_metric": 0.5}, step=1)
    assert journal.pending
    assert _epochs(journal, tracker) == []
    tracker.away_since = NEVER
    assert journal.send()
    assert [record.message.split(" (")[0] for record in caplog.records] == ["MLflow does not answer"]


def test_what_mlflow_refuses_is_said_and_left_out(
    journal: Journal, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    _begin(journal, tracker)
    journal.write("log_params", params={"lr": 0.5})
    journal.write("log_params", params={"lr": 0.25})
    journal.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert not journal.pending
    assert _epochs(journal, tracker) == [(0, 0.5)]
    assert "MLflow refused log_params" in caplog.text


def test_a_line_torn_by_a_death_is_dropped(journal: Journal, tracker: Tracker) -> None:
    _begin(journal, tracker)
    with (journal.folder / "journal.jsonl").open("a") as file:
        file.write('{"call": "log_met')
    assert not journal.pending
    again = Journal(journal.folder, tracker)
    assert again.begun
    again.write("log_metrics", metrics={"val_metric": 0.5}, step=0)
    assert _epochs(again, tracker) == [(0, 0.5)]
    lines = (journal.folder / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["call"] for line in lines] == ["start_run", "log_metrics"]


def test_a_torn_beginning_is_no_beginning(journal: Journal) -> None:
    (journal.folder / "journal.jsonl").write_text('{"call": "start_')
    assert (journal.begun, journal.pending) == (False, False)


def test_steps_are_those_written(journal: Journal, tracker: Tracker, cable: Cable) -> None:
    _begin(journal, tracker)
    journal.write("log_metrics", metrics={"epoch": 0}, step=0)
    cable.cut = "before"
    journal.write("log_metrics", metrics={"epoch": 1}, step=1)
    assert journal.steps("epoch") == {0, 1}
    assert journal.steps("other") == set()


def test_the_steps_of_a_lost_journal_are_asked_of_the_run(journal: Journal, tracker: Tracker) -> None:
    _begin(journal, tracker)
    journal.write("log_metrics", metrics={"epoch": 0}, step=0)
    run_id = journal.run_id
    journal.discard()
    again = Journal(journal.folder, tracker, run_id)
    assert again.begun
    assert again.steps("epoch") == {0}


def test_only_a_sent_journal_is_closed(journal: Journal, tracker: Tracker, cable: Cable) -> None:
    _begin(journal, tracker)
    cable.cut = "before"
    journal.write("log_text", text="x", name="x.txt")
    journal.close()
    assert journal.pending
    cable.cut = ""
    journal.send(now=True)
    journal.close()
    assert list(journal.folder.iterdir()) == []


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=8))
def test_whatever_is_cut_every_epoch_arrives_once(
    cuts: list[str], tmp_path_factory: pytest.TempPathFactory, ready_databases: Any
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    tracker = Tracker(ready_databases(folder, "mlflow.db"))
    experiment = tracker.experiment("criteria-first")
    with pytest.MonkeyPatch.context() as patch:
        cable = Cable(patch, tracker)
        for epoch, cut in enumerate(cuts):
            journal = Journal(folder / "trial_3", tracker)  # as another process would
            cable.cut, tracker.away_since = cut, NEVER
            if epoch == 0:
                journal.write("start_run", experiment_id=experiment, name="trial_3", tags=TAGS)
            journal.write("log_metrics", metrics={"val_metric": epoch / 4}, step=epoch)
        cable.cut = ""
        assert journal.send(now=True)
        assert _runs(tracker) == 1
        assert _epochs(journal, tracker) == [(epoch, epoch / 4) for epoch in range(len(cuts))]
