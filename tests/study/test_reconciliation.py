"""Whatever a crash, a person or a lost server leaves behind is found and repaired once."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.cli import main
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import TrialKey, run_id_of
from lightning_hpo.storage.lease import Lease, Machine
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.outboxes import Outboxes
from lightning_hpo.study.reconciliation import Reconciliation, reconcile
from lightning_hpo.study.recorder import record_outcome
from lightning_hpo.study_folder import StudyFolder, TrialFolder
from lightning_hpo.tracking.entries import LogMetrics, LogParams, StartRun
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import RUN_STATUS, Outcome, OutcomeKind, save_outcome
from tests.unchanged import unchanged


class Left:
    """A study as `tune` creates it, with damage."""

    def __init__(self, study: optuna.Study, tracker: Tracker, folder: Path) -> None:
        self.study, self.tracker, self.folder = study, tracker, folder
        attributes = {"study_id": "5f1d", "outdir": str(folder), "agent": "criteria", "monitor": "val_metric"}
        for key, value in attributes.items():
            study.set_user_attr(key, value)
        with lock_study(folder):
            self.experiment = tracker.experiment("criteria-first")
        StudyFolder(folder).study_id_file.write_text("5f1d\n", encoding="utf-8")

    def start(self) -> optuna.Trial:
        trial = self.study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        outbox = Outbox(self.of(trial.number), self.tracker)
        tags = {"study_id": "5f1d", "optuna_study": "first", "optuna_trial": str(trial.number)}
        outbox.folder.config.write_text(f"model: {{lr: {trial.params['lr']}}}\n", encoding="utf-8")
        outbox.write(StartRun(self.experiment, f"trial_{trial.number}", tags))
        outbox.write(LogParams(trial.params))
        trial.set_user_attr(TrialKey.RUN_ID, outbox.run_id)
        for epoch, value in enumerate((0.25, 0.5)):
            outbox.write(LogMetrics({"val_metric": value, "epoch": epoch}, step=epoch))
            trial.report(value, epoch)
        return trial

    def end(self, trial: optuna.Trial, outcome: Outcome) -> None:
        record_outcome(
            self.study, trial, Outbox(self.of(trial.number), self.tracker, trial.user_attrs[TrialKey.RUN_ID]), outcome
        )

    def complete(self) -> optuna.Trial:
        trial = self.start()
        self.end(trial, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=1, runtime_s=1.0))
        return trial

    def of(self, number: int) -> TrialFolder:
        return StudyFolder(self.folder).trial(number)

    def repair(self, *, alive: bool = False) -> list[str]:
        return Reconciliation(self.study, self.tracker, alive=alive).run()

    def trial(self, number: int) -> FrozenTrial:
        return self.study.trials[number]

    def status(self, number: int) -> str:
        run_id = run_id_of(self.study, self.trial(number))
        assert run_id is not None
        return str(self.tracker.client.get_run(run_id).info.status)

    def agree(self) -> bool:
        """Whether every trial has its one run, with its status, and nothing else is there."""
        runs = {run.run_id: run.status for run in self.tracker.runs(self.experiment)}
        expected = {run_id_of(self.study, trial): RUN_STATUS[trial.state] for trial in self.study.trials}
        return runs == expected and Reconciliation(self.study, self.tracker, alive=False).run(dry_run=True) == []


def _away(*arguments: Any, **named: Any) -> None:
    raise ConnectionError


@pytest.fixture
def left(study: optuna.Study, tracker: Tracker, tmp_path: Path) -> Left:
    return Left(study, tracker, tmp_path / "outputs" / "first")


def test_study_with_several_objectives_is_skipped(left: Left) -> None:
    study = optuna.create_study(study_name="two", directions=["maximize", "minimize"])
    for key, value in left.study.user_attrs.items():
        study.set_user_attr(key, value)
    assert reconcile(study, left.tracker) == ["skipped: it has 2 objectives"]


def test_consistent_study_has_no_findings(left: Left) -> None:
    left.complete()
    left.end(left.start(), Outcome(OutcomeKind.INTERRUPTED))
    assert left.repair() == []
    assert left.agree()


def test_running_trial_without_a_process_is_paused(left: Left) -> None:
    left.complete()
    left.start()
    [line] = left.repair()
    assert line == "trial 1 is running, but no process trains it: paused"
    assert (left.trial(1).state, left.status(1)) == (TrialState.WAITING, "SCHEDULED")
    assert left.trial(1).user_attrs["ended_by"] == "the study process has exited"
    assert left.agree()


def test_exit_of_the_study_process_is_no_crash_of_a_trial(left: Left) -> None:
    left.start()
    for _ in range(4):
        left.repair()
        assert left.study.ask().number == 0
    assert "deaths" not in left.trial(0).user_attrs


def test_saved_outcome_is_recorded(left: Left) -> None:
    trial = left.start()
    save_outcome(left.of(0), Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=1, runtime_s=1.0))
    [line] = left.repair()
    assert line == "trial 0 is running, but no process trains it: its outcome was complete"
    assert (left.trial(0).state, left.trial(0).value, left.status(0)) == (TrialState.COMPLETE, 0.5, "FINISHED")
    assert "deaths" not in left.trial(trial.number).user_attrs
    assert left.agree()


@pytest.mark.parametrize("recorded", ["run", "nothing"])
def test_crash_between_ask_and_start(left: Left, recorded: str) -> None:
    trial = left.study.ask()
    if recorded == "run":  # created, but not stored with the trial yet
        tags = {"study_id": "5f1d", "optuna_study": "first", "optuna_trial": "0"}
        outbox = Outbox(left.of(0), left.tracker)
        outbox.write(StartRun(left.experiment, "trial_0", tags))
    left.repair()
    assert left.trial(trial.number).state == TrialState.WAITING
    assert left.agree() if recorded == "run" else list(left.tracker.runs(left.experiment)) == []


def test_run_without_a_trial_goes_to_the_trash(left: Left) -> None:
    left.complete()
    tags = {"study_id": "5f1d", "optuna_study": "first", "optuna_trial": "0"}
    doubled = left.tracker.start_run(left.experiment, "trial_0", tags)
    other = left.tracker.start_run(left.experiment, "study", {})
    [line] = left.repair()
    assert line == f"run {doubled} names trial 0, which has another run: moved to MLflow's trash"
    assert {run.run_id for run in left.tracker.runs(left.experiment)} == {
        left.trial(0).user_attrs[TrialKey.RUN_ID],
        other,
    }
    assert left.repair() == []


@pytest.mark.parametrize(
    "kind", [OutcomeKind.COMPLETE, OutcomeKind.PRUNED, OutcomeKind.FAILED, OutcomeKind.INTERRUPTED]
)
def test_trial_without_a_run_is_recorded_again(left: Left, kind: OutcomeKind) -> None:
    trial = left.start()
    left.end(trial, Outcome(kind, value=0.5, epoch=1, runtime_s=1.0))
    left.tracker.delete_run(trial.user_attrs[TrialKey.RUN_ID])
    assert left.repair() == ["trial 0 has no run: recorded again"]
    run_id = run_id_of(left.study, left.trial(0))
    run = left.tracker.client.get_run(str(run_id))
    # From the config, or from the outbox of a trial that has not ended.
    assert run.data.params.items() >= {"lr": str(trial.params["lr"])}.items()
    assert (kind is OutcomeKind.INTERRUPTED) or run.data.params["model.lr"] == str(trial.params["lr"])
    history = left.tracker.client.get_metric_history(str(run_id), "val_metric")
    assert sorted((point.step, point.value) for point in history) == [(0, 0.25), (1, 0.5)]
    assert left.agree()


def test_run_status_follows_the_trial(left: Left) -> None:
    trial = left.complete()
    left.tracker.set_status(trial.user_attrs[TrialKey.RUN_ID], "RUNNING", {})
    assert left.repair() == ["trial 0 is COMPLETE and its run RUNNING: run set to FINISHED"]
    assert left.agree()


def test_nothing_is_repaired_while_the_experiment_is_deleted(left: Left) -> None:
    trial = left.start()
    left.of(trial.number).outbox.write_bytes(left.of(trial.number).outbox.read_bytes() * 2)  # unsent entries
    left.tracker.client.delete_experiment(left.experiment)
    before = left.of(trial.number).outbox.read_bytes(), left.of(trial.number).outbox_state.read_bytes()
    with pytest.raises(
        InputError, match=r"experiment criteria-first is deleted in MLflow: restore it .*--experiment-id"
    ):
        left.repair()
    assert (left.of(trial.number).outbox.read_bytes(), left.of(trial.number).outbox_state.read_bytes()) == before
    assert left.trial(0).state == TrialState.RUNNING


def test_entries_that_mlflow_refuses_are_kept_and_not_reported_as_sent(left: Left) -> None:
    trial = left.complete()
    run_id = trial.user_attrs[TrialKey.RUN_ID]
    outbox = Outbox(left.of(0), left.tracker, run_id)
    left.tracker.client.delete_run(run_id)
    outbox.write(LogMetrics({"late": 1.0}, step=5))
    assert outbox.pending
    assert left.repair() == ["trial 0 has no run: recorded again"]
    new = left.tracker.client.get_run(str(run_id_of(left.study, left.trial(0))))
    assert (new.info.run_id != run_id, new.data.metrics["late"], new.data.metrics["val_metric"]) == (True, 1.0, 0.5)


def test_unsent_entries_are_sent(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name in ("start_run", "log_metrics", "set_status"):
            patch.setattr(left.tracker, name, _away)
        trial = left.study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        outbox = Outbox(left.of(0), left.tracker)
        tags = {"study_id": "5f1d", "optuna_study": "first", "optuna_trial": "0"}
        outbox.write(StartRun(left.experiment, "trial_0", tags))
        record_outcome(left.study, trial, outbox, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=0))
    assert left.repair() == ["trial 0 has entries that MLflow has not received: sent"]
    assert left.status(0) == "FINISHED"
    assert not left.of(0).outbox.exists()
    assert left.agree()


def test_unneeded_checkpoints_are_removed(left: Left) -> None:
    left.complete()
    left.end(left.start(), Outcome(OutcomeKind.INTERRUPTED))
    for number in (0, 1):
        for name in ("best.ckpt", "last.ckpt", "last.ckpt.partial"):
            (left.of(number).path / name).touch()
    assert len(left.repair()) == 2
    assert sorted(path.name for path in left.of(0).path.glob("*.ckpt*")) == ["best.ckpt"]
    assert len(list(left.of(1).path.glob("*.ckpt*"))) == 3


def test_a_dry_run_changes_nothing(left: Left) -> None:
    left.start()
    left.tracker.set_status(left.complete().user_attrs[TrialKey.RUN_ID], "RUNNING", {})
    found = reconcile(left.study, left.tracker, dry_run=True)
    assert len(found) == 2
    assert left.trial(0).state == TrialState.RUNNING
    assert left.status(1) == "RUNNING"
    assert reconcile(left.study, left.tracker) == found
    assert reconcile(left.study, left.tracker) == ["nothing to repair"]


def test_running_study_keeps_its_running_trials(left: Left) -> None:
    left.start()
    left.tracker.set_status(left.complete().user_attrs[TrialKey.RUN_ID], "RUNNING", {})
    with lock_study(left.folder):
        assert reconcile(left.study, left.tracker) == [
            "trial 1 is COMPLETE and its run RUNNING: run set to FINISHED",
            "running trials are skipped: a process is tuning the study",
        ]
    assert left.trial(0).state == TrialState.RUNNING


def test_trials_that_another_machine_runs_are_skipped(left: Left) -> None:
    left.start()
    Lease(Machine("other", "a start", 7, "1")).take(left.study)
    assert reconcile(left.study, left.tracker) == ["running trials are skipped: a process is tuning the study"]
    assert left.trial(0).state == TrialState.RUNNING


def test_running_trials_of_another_machine_are_skipped(left: Left) -> None:
    left.start()
    left.complete()
    left.study.set_user_attr("outdir", "/nowhere/outputs/first")
    [line] = reconcile(left.study, left.tracker)
    assert line == "running trials are skipped: the folder /nowhere/outputs/first is not on this machine"
    assert not Path("/nowhere").exists()
    assert left.trial(0).state == TrialState.RUNNING


def test_reconcile_command(
    left: Left, storage_url: str, tracking_uri: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    left.start()
    where = ["--storage", storage_url, "--tracking_uri", tracking_uri]
    assert main(["reconcile", "--dry-run", *where]) == 0
    assert main(["reconcile", "--study", "first", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[1] == "first: trial 0 is running, but no process trains it: paused"
    with unchanged(tmp_path):
        assert main(["reconcile", "--study", "second", *where]) == 2
    optuna.create_study(study_name="other", storage=storage_url)
    assert main(["reconcile", "--study", "other", *where]) == 0
    assert capsys.readouterr().out == "other: skipped: it was not created by `tune`\n"


def test_run_created_just_before_a_crash_is_stored(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = left.study.ask()
    outbox = Outbox(left.of(0), left.tracker)
    with monkeypatch.context() as patch:
        for name in ("start_run", "log_metrics", "set_status"):
            patch.setattr(left.tracker, name, _away)
        outbox.write(StartRun(left.experiment, "trial_0", {"optuna_study": "first", "optuna_trial": "0"}))
        record_outcome(left.study, trial, outbox, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=0))
    assert Outbox(left.of(0), left.tracker).send(now=True)  # and the process is killed before it stores the run
    assert run_id_of(left.study, left.trial(0)) is None
    outboxes = Outboxes(left.study, left.tracker)
    assert Reconciliation(left.study, left.tracker, alive=False, outboxes=outboxes).run() == []
    assert outboxes.drain()
    [run] = left.tracker.runs(left.experiment)
    assert run_id_of(left.study, left.trial(0)) == run.run_id
    assert left.agree()


def test_run_whose_creation_was_not_noted_is_found_again(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = left.study.ask()
    outbox = Outbox(left.of(0), left.tracker)
    left.of(0).config.write_text("model: {}\n", encoding="utf-8")
    tags = {"study_id": "5f1d", "optuna_study": "first", "optuna_trial": "0"}
    with monkeypatch.context() as patch:
        start_run = left.tracker.start_run

        def killed_after(*arguments: Any) -> str:
            start_run(*arguments)
            raise OSError

        patch.setattr(left.tracker, "start_run", killed_after)
        outbox.write(StartRun(left.experiment, "trial_0", tags))
    record_outcome(left.study, trial, outbox, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=0))
    [created] = left.tracker.runs(left.experiment)
    outboxes = Outboxes(left.study, left.tracker)
    assert Reconciliation(left.study, left.tracker, alive=False, outboxes=outboxes).run() == []
    assert outboxes.drain()
    assert run_id_of(left.study, left.trial(0)) == created.run_id
    assert left.agree()


@pytest.mark.parametrize("tuning", [True, False])
def test_tune_compares_only_what_has_not_ended(left: Left, tuning: bool) -> None:
    left.complete()
    paused = left.start()
    left.end(paused, Outcome(OutcomeKind.INTERRUPTED))
    left.tracker.set_status(left.trial(0).user_attrs[TrialKey.RUN_ID], "FAILED", {})
    left.tracker.set_status(left.trial(1).user_attrs[TrialKey.RUN_ID], "FAILED", {})
    outboxes = Outboxes(left.study, left.tracker) if tuning else None
    found = Reconciliation(left.study, left.tracker, alive=False, outboxes=outboxes).run()
    lines = ["trial 1 is WAITING and its run FAILED: run set to SCHEDULED"]
    assert found == ([] if tuning else ["trial 0 is COMPLETE and its run FAILED: run set to FINISHED"]) + lines
