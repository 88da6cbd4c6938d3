"""Everything that a crash, a person or a lost server can leave behind, found and mended once."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.cli import main
from lightning_hpo.storage.attributes import RUN_ID, run_id_of
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.reconciliation import Reconciliation, reconcile
from lightning_hpo.study.recorder import record_outcome
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import RUN_STATUS, Outcome, OutcomeKind, save_outcome


class Left:
    """A study as `tune` makes it, and what is left of it."""

    def __init__(self, study: optuna.Study, tracker: Tracker, folder: Path) -> None:
        self.study, self.tracker, self.folder = study, tracker, folder
        about = {"outdir": str(folder), "agent": "criteria", "monitor": "val_metric"}
        for key, value in about.items():
            study.set_user_attr(key, value)
        with lock_study(folder):
            self.experiment = tracker.experiment("criteria-first")

    def start(self) -> optuna.Trial:
        trial = self.study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        outbox = Outbox(self.of(trial.number), self.tracker)
        tags = {"optuna_study": "first", "optuna_trial": str(trial.number)}
        outbox.write("start_run", experiment_id=self.experiment, name=f"trial_{trial.number}", tags=tags)
        trial.set_user_attr(RUN_ID, outbox.run_id)
        for epoch, value in enumerate((0.25, 0.5)):
            outbox.write("log_metrics", metrics={"val_metric": value, "epoch": epoch}, step=epoch)
            trial.report(value, epoch)
        return trial

    def end(self, trial: optuna.Trial, outcome: Outcome) -> None:
        record_outcome(
            self.study, trial, Outbox(self.of(trial.number), self.tracker, trial.user_attrs[RUN_ID]), outcome
        )

    def complete(self) -> optuna.Trial:
        trial = self.start()
        self.end(trial, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=1, runtime_s=1.0))
        return trial

    def of(self, number: int) -> Path:
        return self.folder / f"trial_{number}"

    def mend(self, *, alive: bool = False) -> list[str]:
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


@pytest.fixture
def left(study: optuna.Study, tracker: Tracker, tmp_path: Path) -> Left:
    return Left(study, tracker, tmp_path / "outputs" / "first")


def test_nothing_is_found_where_nothing_is_wrong(left: Left) -> None:
    left.complete()
    left.end(left.start(), Outcome(OutcomeKind.INTERRUPTED))
    assert left.mend() == []
    assert left.agree()


def test_what_nobody_runs_is_parked(left: Left) -> None:
    left.complete()
    left.start()
    [line] = left.mend()
    assert line == "trial 1 is running and nobody runs it: parked, or failed after three deaths"
    assert (left.trial(1).state, left.status(1)) == (TrialState.WAITING, "SCHEDULED")
    assert left.trial(1).user_attrs["ended_by"] == "the study's process died"
    assert left.agree()


def test_the_third_death_fails(left: Left) -> None:
    left.start()
    for _ in range(3):
        left.mend()
        left.study.ask()
    assert [trial.state for trial in left.study.trials] == [TrialState.FAIL, TrialState.RUNNING]


def test_what_had_ended_is_not_run_again(left: Left) -> None:
    trial = left.start()
    save_outcome(left.of(0), Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=1, runtime_s=1.0))
    [line] = left.mend()
    assert line == "trial 0 is running and nobody runs it: it had ended (complete)"
    assert (left.trial(0).state, left.trial(0).value, left.status(0)) == (TrialState.COMPLETE, 0.5, "FINISHED")
    assert "deaths" not in left.trial(trial.number).user_attrs
    assert left.agree()


@pytest.mark.parametrize("told", ["run", "nothing"])
def test_a_death_between_ask_and_start(left: Left, told: str) -> None:
    trial = left.study.ask()
    if told == "run":  # made, and the trial does not know it yet
        tags = {"optuna_study": "first", "optuna_trial": "0"}
        outbox = Outbox(left.of(0), left.tracker)
        outbox.write("start_run", experiment_id=left.experiment, name="trial_0", tags=tags)
    left.mend()
    assert left.trial(trial.number).state == TrialState.WAITING
    assert left.agree() if told == "run" else list(left.tracker.runs(left.experiment)) == []


def test_a_run_that_no_trial_knows_goes_to_the_bin(left: Left) -> None:
    left.complete()
    tags = {"optuna_study": "first", "optuna_trial": "0"}
    doubled = left.tracker.start_run(left.experiment, "trial_0", tags)
    other = left.tracker.start_run(left.experiment, "study", {})
    [line] = left.mend()
    assert line == f"run {doubled} says it is trial 0, which knows nothing of it: put into MLflow's bin"
    assert {run.run_id for run in left.tracker.runs(left.experiment)} == {left.trial(0).user_attrs[RUN_ID], other}
    assert left.mend() == []


@pytest.mark.parametrize(
    "ending", [OutcomeKind.COMPLETE, OutcomeKind.PRUNED, OutcomeKind.FAILED, OutcomeKind.INTERRUPTED]
)
def test_a_trial_whose_run_is_gone_is_recorded_anew(left: Left, ending: OutcomeKind) -> None:
    trial = left.start()
    left.end(trial, Outcome(ending, value=0.5, epoch=1, runtime_s=1.0))
    left.tracker.delete_run(trial.user_attrs[RUN_ID])
    assert left.mend() == ["trial 0 has no run: recorded anew"]
    run_id = run_id_of(left.study, left.trial(0))
    run = left.tracker.client.get_run(str(run_id))
    assert run.data.params == {"lr": str(trial.params["lr"])}
    history = left.tracker.client.get_metric_history(str(run_id), "val_metric")
    assert sorted((point.step, point.value) for point in history) == [(0, 0.25), (1, 0.5)]
    assert left.agree()


def test_a_status_that_does_not_match_follows_the_trial(left: Left) -> None:
    trial = left.complete()
    left.tracker.set_status(trial.user_attrs[RUN_ID], "RUNNING", {})
    assert left.mend() == ["trial 0 is COMPLETE, its run RUNNING: now FINISHED"]
    assert left.agree()


def test_what_mlflow_has_not_got_is_sent(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: Any, **named: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        for name in ("start_run", "log_metrics", "set_status"):
            patch.setattr(left.tracker, name, away)
        trial = left.study.ask()
        trial.suggest_float("lr", 0.1, 1.0)
        outbox = Outbox(left.of(0), left.tracker)
        tags = {"optuna_study": "first", "optuna_trial": "0"}
        outbox.write("start_run", experiment_id=left.experiment, name="trial_0", tags=tags)
        record_outcome(left.study, trial, outbox, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=0))
    assert left.mend() == ["trial 0 has not told MLflow everything: sent"]
    assert left.status(0) == "FINISHED"
    assert not (left.of(0) / "journal.jsonl").exists()
    assert left.agree()


def test_checkpoints_of_no_use_are_removed(left: Left) -> None:
    left.complete()
    left.end(left.start(), Outcome(OutcomeKind.INTERRUPTED))
    for number in (0, 1):
        for name in ("best.ckpt", "last.ckpt", "last.ckpt.partial"):
            (left.of(number) / name).touch()
    assert len(left.mend()) == 2
    assert sorted(path.name for path in left.of(0).glob("*.ckpt*")) == ["best.ckpt"]
    assert len(list(left.of(1).glob("*.ckpt*"))) == 3


def test_a_dry_run_changes_nothing(left: Left) -> None:
    left.start()
    left.tracker.set_status(left.complete().user_attrs[RUN_ID], "RUNNING", {})
    found = reconcile(left.study, left.tracker, dry_run=True)
    assert len(found) == 2
    assert left.trial(0).state == TrialState.RUNNING
    assert left.status(1) == "RUNNING"
    assert reconcile(left.study, left.tracker) == found
    assert reconcile(left.study, left.tracker) == ["nothing to mend"]


def test_what_a_living_process_owns_is_not_touched(left: Left) -> None:
    left.start()
    left.tracker.set_status(left.complete().user_attrs[RUN_ID], "RUNNING", {})
    with lock_study(left.folder):
        assert reconcile(left.study, left.tracker) == [
            "trial 1 is COMPLETE, its run RUNNING: now FINISHED",
            "it is being tuned: trials that run were left alone",
        ]
    assert left.trial(0).state == TrialState.RUNNING


def test_a_folder_of_another_machine_is_left_alone(left: Left) -> None:
    left.start()
    left.study.set_user_attr("outdir", "/nowhere/outputs/first")
    [line] = reconcile(left.study, left.tracker)
    assert line.startswith("its folder /nowhere/outputs/first is not on this machine")
    assert left.trial(0).state == TrialState.RUNNING


def test_the_command(left: Left, storage_url: str, tracking_uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    left.start()
    where = ["--storage", storage_url, "--tracking_uri", tracking_uri]
    assert main(["reconcile", "--dry-run", *where]) == 0
    assert main(["reconcile", "--study", "first", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[1] == "first: trial 0 is running and nobody runs it: parked, or failed after three deaths"
    assert main(["reconcile", "--study", "second", *where]) == 2
    optuna.create_study(study_name="other", storage=storage_url)
    assert main(["reconcile", "--study", "other", *where]) == 0
    assert capsys.readouterr().out == "other: it was not made by `tune`: left alone\n"
