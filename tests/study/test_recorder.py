from pathlib import Path
from typing import Any

import mlflow.artifacts
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.connection import open_storage
from lightning_hpo.storage.optuna_private import reattach
from lightning_hpo.study.recorder import record_outcome
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import Outcome, OutcomeKind


def _start(study: optuna.Study, tracker: Tracker) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("lr", 0.1, 1.0)
    trial.report(0.25, 0)
    trial.report(0.5, 1)
    run_id = tracker.start_run(tracker.experiment("criteria-first"), f"trial_{trial.number}", {})
    trial.set_user_attr(TrialKey.RUN_ID, run_id)
    return trial


def _record(study: optuna.Study, trial: optuna.Trial, tracker: Tracker, outcome: Outcome) -> TrialState:
    folder = Path(tracker.uri.removeprefix("sqlite:///")).parent / "outputs" / f"trial_{trial.number}"
    return record_outcome(
        study, trial, Outbox(TrialFolder(folder), tracker, trial.user_attrs.get(TrialKey.RUN_ID)), outcome
    )


def _die(*arguments: Any) -> None:
    raise KeyboardInterrupt


def _read(study: optuna.Study, tracker: Tracker, number: int) -> tuple[FrozenTrial, Any]:
    """The trial as another process sees it, and its run."""
    storage_url = str(study._storage._backend.url)  # type: ignore[attr-defined]
    trial = optuna.load_study(
        study_name=study.study_name, storage=open_storage(DatabaseUrl(storage_url, "--study.storage"))
    ).trials[number]
    return trial, tracker.client.get_run(trial.user_attrs[TrialKey.RUN_ID])


_ROWS = [
    (
        Outcome(OutcomeKind.COMPLETE, value=0.75, epoch=1, runtime_s=2.0),
        TrialState.COMPLETE, "FINISHED", 0.75,
        {"best_epoch": 1}, {}, {"final_metric": 0.75, "best_epoch": 1.0, "runtime_s": 2.0},
    ),
    (
        Outcome(OutcomeKind.COMPLETE, 0.75, epoch=0, collapsed=True, model_uri="models:/m-1", reason="not logged"),
        TrialState.COMPLETE, "FINISHED", 0.75,
        {"best_epoch": 0, "collapsed": True, "mlflow_model_uri": "models:/m-1", "ended_by": "not logged"},
        {"collapsed": "true", "ended_by": "not logged"},
        {"final_metric": 0.75, "best_epoch": 0.0, "runtime_s": 0.0},
    ),
    (
        Outcome(OutcomeKind.PRUNED, epoch=1, reason="pruned", runtime_s=2.0),
        TrialState.PRUNED, "KILLED", 0.5,
        {"pruned_at_epoch": 1, "ended_by": "pruned"}, {"pruned_at_epoch": "1", "ended_by": "pruned"},
        {"runtime_s": 2.0},
    ),
    (
        Outcome(OutcomeKind.INTERRUPTED, reason="interrupted"),
        TrialState.WAITING, "SCHEDULED", None,
        {"ended_by": "interrupted"}, {"ended_by": "interrupted"}, {},
    ),
    (
        Outcome(OutcomeKind.CRASHED, reason="killed by SIGKILL"),
        TrialState.WAITING, "SCHEDULED", None,
        {"ended_by": "killed by SIGKILL", "deaths": 1, "epochs_at_crash": 2}, {"ended_by": "killed by SIGKILL"}, {},
    ),
    (
        Outcome(OutcomeKind.OUT_OF_MEMORY, reason="out of memory", runtime_s=2.0),
        TrialState.FAIL, "FAILED", None,
        {"ended_by": "out of memory"}, {"ended_by": "out of memory"}, {"runtime_s": 2.0},
    ),
    (
        Outcome(OutcomeKind.FAILED, reason="train_loss is nan at epoch 1", runtime_s=2.0),
        TrialState.FAIL, "FAILED", None,
        {"ended_by": "train_loss is nan at epoch 1"}, {"ended_by": "train_loss is nan at epoch 1"}, {"runtime_s": 2.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "state", "status", "value", "attributes", "tags", "metrics"), _ROWS)
def test_every_outcome_is_recorded_in_both_databases(
    study: optuna.Study,
    tracker: Tracker,
    outcome: Outcome,
    state: TrialState,
    status: str,
    value: float | None,
    attributes: dict[str, Any],
    tags: dict[str, str],
    metrics: dict[str, float],
) -> None:
    started = _start(study, tracker)
    assert _record(study, started, tracker, outcome) == state
    trial, run = _read(study, tracker, 0)
    assert (trial.state, run.info.status) == (state, status)
    assert (trial.value if state.is_finished() else None) == value
    seconds = {TrialKey.RUNTIME: outcome.runtime_s} if outcome.runtime_s else {}
    own = {key: kept for key, kept in trial.user_attrs.items() if key not in (TrialKey.RUN_ID, TrialKey.LAST_ATTEMPT)}
    assert own == attributes | seconds
    assert {key: tag for key, tag in run.data.tags.items() if not key.startswith("mlflow.")} == {
        **tags,
        "optuna_state": state.name,
    }
    assert run.data.metrics == metrics
    assert trial.intermediate_values == {0: 0.25, 1: 0.5}


def test_every_kind_of_outcome_has_a_row() -> None:
    assert {row[0].kind for row in _ROWS} == set(OutcomeKind)


@pytest.mark.parametrize("kind", [OutcomeKind.INTERRUPTED, OutcomeKind.CRASHED])
def test_paused_trial_is_asked_for_next_with_its_state(
    study: optuna.Study, tracker: Tracker, kind: OutcomeKind
) -> None:
    paused = _start(study, tracker)
    other = _start(study, tracker)
    _record(study, paused, tracker, Outcome(kind, reason="gone"))
    again = study.ask()
    assert again.number == paused.number
    assert again.suggest_float("lr", 0.1, 1.0) == paused.params["lr"] != other.params["lr"]
    assert again.user_attrs[TrialKey.RUN_ID] == paused.user_attrs[TrialKey.RUN_ID]
    assert study.trials[again.number].intermediate_values == {0: 0.25, 1: 0.5}
    assert study.ask().number == 2


def test_runtime_sums_all_attempts(study: optuna.Study, tracker: Tracker) -> None:
    _record(study, _start(study, tracker), tracker, Outcome(OutcomeKind.INTERRUPTED, reason="gone", runtime_s=2.0))
    _record(study, study.ask(), tracker, Outcome(OutcomeKind.PRUNED, epoch=1, runtime_s=3.0))
    assert study.trials[0].user_attrs[TrialKey.RUNTIME] == 5.0


def test_runtime_of_an_attempt_counts_once(
    study: optuna.Study, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = _start(study, tracker)
    trial.set_user_attr(TrialKey.WORKER, {"since": 1.0})
    _record(study, trial, tracker, Outcome(OutcomeKind.INTERRUPTED, reason="gone", runtime_s=100.0))
    trial = study.ask()
    trial.set_user_attr(TrialKey.WORKER, {"since": 2.0})  # as long as the first one, and yet another attempt
    outcome = Outcome(OutcomeKind.COMPLETE, value=0.75, epoch=1, runtime_s=100.0)
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", _die)
        with pytest.raises(KeyboardInterrupt):
            _record(study, trial, tracker, outcome)
    _record(study, reattach(study, trial), tracker, outcome)
    assert study.trials[0].user_attrs[TrialKey.RUNTIME] == 200.0


def test_third_crash_fails_the_trial(study: optuna.Study, tracker: Tracker) -> None:
    states = []
    trial = _start(study, tracker)
    for _ in range(3):
        states.append(_record(study, trial, tracker, Outcome(OutcomeKind.CRASHED, reason="killed by SIGKILL")))
        trial = study.ask()
    assert states == [TrialState.WAITING, TrialState.WAITING, TrialState.FAIL]
    assert trial.number == 1
    failed, run = _read(study, tracker, 0)
    assert (failed.state, run.info.status, run.data.tags["optuna_state"]) == (TrialState.FAIL, "FAILED", "FAIL")


def test_crashes_are_forgotten_when_an_epoch_is_gained(study: optuna.Study, tracker: Tracker) -> None:
    trial = _start(study, tracker)
    states, counted = [], []
    for gained in (False, False, True, False, False):
        if gained:
            reattach(study, trial).report(0.75, 2)  # in an object of its own, as the server of a trial does it
        states.append(_record(study, trial, tracker, Outcome(OutcomeKind.CRASHED, reason="killed by SIGKILL")))
        counted.append(study.trials[0].user_attrs[TrialKey.CRASHES])
        trial = study.ask()
    assert counted == [1, 2, 1, 2, 3]
    assert states == [TrialState.WAITING] * 4 + [TrialState.FAIL]


def test_crashes_that_an_earlier_version_counted_are_forgotten(study: optuna.Study, tracker: Tracker) -> None:
    trial = _start(study, tracker)
    trial.set_user_attr(TrialKey.CRASHES, 2)  # it counted every exit of the study process
    assert _record(study, trial, tracker, Outcome(OutcomeKind.CRASHED)) == TrialState.WAITING
    assert study.trials[0].user_attrs[TrialKey.CRASHES] == 1


def test_interruptions_do_not_count_as_crashes(study: optuna.Study, tracker: Tracker) -> None:
    trial = _start(study, tracker)
    for _ in range(4):
        assert _record(study, trial, tracker, Outcome(OutcomeKind.INTERRUPTED)) == TrialState.WAITING
        trial = study.ask()
    assert trial.number == 0


def test_traceback_is_an_artifact(study: optuna.Study, tracker: Tracker) -> None:
    trial = _start(study, tracker)
    _record(
        study, trial, tracker, Outcome(OutcomeKind.FAILED, reason="RuntimeError", traceback="File x\nRuntimeError\n")
    )
    path = mlflow.artifacts.download_artifacts(
        run_id=trial.user_attrs[TrialKey.RUN_ID], artifact_path="traceback.txt", tracking_uri=tracker.uri
    )
    assert Path(path).read_text() == "File x\nRuntimeError\n"


def test_trial_without_a_run_has_an_outcome(study: optuna.Study, tracker: Tracker) -> None:
    assert _record(study, study.ask(), tracker, Outcome(OutcomeKind.FAILED, reason="x")) == TrialState.FAIL
    assert _record(study, study.ask(), tracker, Outcome(OutcomeKind.CRASHED)) == TrialState.WAITING
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_outcome_recorded_twice_counts_once(
    study: optuna.Study, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = _start(study, tracker)
    outcome = Outcome(OutcomeKind.COMPLETE, value=0.75, epoch=1, runtime_s=2.0)

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", _die)
        with pytest.raises(KeyboardInterrupt):
            _record(study, trial, tracker, outcome)
    _record(study, trial, tracker, outcome)
    complete, run = _read(study, tracker, 0)
    assert (complete.state, complete.value, run.info.status) == (TrialState.COMPLETE, 0.75, "FINISHED")
    assert complete.user_attrs[TrialKey.RUNTIME] == 2.0
    assert len(tracker.client.get_metric_history(run.info.run_id, "final_metric")) == 1
