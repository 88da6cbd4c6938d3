from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.storage.attributes import StudyKey, TrialKey, run_id_of
from lightning_hpo.storage.optuna_private import pause_trial
from lightning_hpo.study.outboxes import Outboxes, outbox_of
from lightning_hpo.tracking.entries import EntryFile, SetStatus, StartRun
from lightning_hpo.tracking.tracker import Tracker

TAGS = {"optuna_study": "first", "optuna_trial": "0"}


@pytest.fixture
def study(study: optuna.Study, tmp_path: Path) -> optuna.Study:
    study.set_user_attr(StudyKey.OUTDIR, str(tmp_path / "outputs" / "first"))
    return study


@pytest.fixture
def outboxes(study: optuna.Study, tracker: Tracker) -> Outboxes:
    return Outboxes(study, tracker)


def _begun(outboxes: Outboxes, study: optuna.Study, tracker: Tracker) -> optuna.Trial:
    trial = study.ask()
    outboxes.of(trial).write(StartRun(tracker.experiment("criteria-first"), "trial_0", TAGS))
    return trial


def test_run_of_a_running_trial_is_stored_when_it_has_been_created(
    outboxes: Outboxes, study: optuna.Study, tracker: Tracker
) -> None:
    trial = _begun(outboxes, study, tracker)
    assert outboxes.drain()
    assert outboxes.of(trial).run_id is not None
    assert study.trials[0].user_attrs[TrialKey.RUN_ID] == outboxes.of(trial).run_id


@pytest.mark.parametrize("finished", [True, False])
def test_outbox_of_a_released_trial_stays_until_it_is_sent_and_the_trial_has_finished(
    outboxes: Outboxes, study: optuna.Study, tracker: Tracker, finished: bool
) -> None:
    trial = _begun(outboxes, study, tracker)
    outbox = outboxes.of(trial)
    outbox.write(SetStatus("FINISHED" if finished else "SCHEDULED", {}))
    if finished:
        study.tell(trial, 0.5)
    else:
        pause_trial(study, trial)
    outboxes.release(trial)
    assert outboxes.unsent == 1
    assert outboxes.drain()
    assert (outboxes.unsent, outbox.folder.outbox.exists()) == (0, not finished)
    run_id = run_id_of(study, study.trials[0])
    assert run_id is not None
    assert tracker.client.get_run(run_id).info.status == ("FINISHED" if finished else "SCHEDULED")


def test_entry_that_is_written_after_the_last_sending_is_not_forgotten(
    outboxes: Outboxes, study: optuna.Study, tracker: Tracker
) -> None:
    trial = _begun(outboxes, study, tracker)
    outbox = outboxes.of(trial)
    assert outboxes._sender.drain()  # sent, and not yet settled
    EntryFile(outbox.folder).append(SetStatus("FINISHED", {}))
    study.tell(trial, 0.5)
    outboxes._unsent.add(0)
    outboxes.settle()
    assert (outboxes.unsent, outbox.pending) == (1, True)
    outboxes.release(trial)
    assert outboxes.drain()
    assert (outboxes.unsent, outbox.folder.outbox.exists()) == (0, False)


def test_what_an_earlier_command_left_is_sent(study: optuna.Study, tracker: Tracker) -> None:
    left = optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.5)
    study.add_trial(left)
    outbox = outbox_of(study, tracker, study.trials[0], on_write=lambda: None)
    outbox.write(StartRun(tracker.experiment("criteria-first"), "trial_0", TAGS))
    outbox.write(SetStatus("FINISHED", {}))
    outboxes = Outboxes(study, tracker)
    outboxes.add(0, outbox)
    assert outboxes.drain()
    run_id = run_id_of(study, study.trials[0])
    assert run_id is not None
    assert tracker.client.get_run(run_id).info.status == "FINISHED"
    assert not outbox.folder.outbox.exists()


def test_resumed_trial_is_no_longer_counted_as_unsent(
    outboxes: Outboxes, study: optuna.Study, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(tracker, "set_status", away)
    trial = _begun(outboxes, study, tracker)
    outboxes.of(trial).write(SetStatus("SCHEDULED", {}))
    pause_trial(study, trial)
    outboxes.release(trial)
    assert not outboxes.drain()
    assert (outboxes.unsent, outboxes.problem) == (1, "does not answer")
    monkeypatch.undo()
    outboxes.of(study.ask())
    assert outboxes.unsent == 0
    assert outboxes.drain()
