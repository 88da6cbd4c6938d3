"""A study goes on after a power cut at any moment, with the values of the study that had none."""

import os
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.tracking.tracker import Tracker
from scripts.power_cut import Recorder, moments, restore
from tests.study_sandbox import CONFIG, StudySandbox

_CUTS = int(os.environ.get("CUTS", "8"))
"""Number of moments; more of them than a run of all tests has time for are set in the environment."""


def _config(root: Path, databases: list[Path], kept: Path) -> dict[str, Any]:
    arguments = {"root": str(root), "databases": [str(each) for each in databases], "kept": str(kept)}
    callback = {"class_path": "scripts.power_cut.RecordTrial", "init_args": arguments}
    return {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}


def _values(sandbox: StudySandbox) -> list[Any]:
    """Return parameters, values and reports of the trials, and the steps that MLflow has."""
    found: list[Any] = []
    for trial in sandbox.trials("cut"):
        assert trial.state == TrialState.COMPLETE
        run = sandbox.runs("cut")[trial.number]
        assert run.info.status == "FINISHED"
        found.append((trial.params, trial.value, trial.intermediate_values, sandbox.steps(run, "val_metric")))
    return found


def test_study_resumes_after_a_power_cut(sandbox: StudySandbox, tmp_path: Path) -> None:
    root, kept = tmp_path / "outputs" / "cut", tmp_path / "kept"
    databases = [tmp_path / "_optuna" / "dataaug.db", tmp_path / "mlflow.db"]
    config = _config(root, databases, kept)
    flags = ("--study.n_trials", "2", "--study.register", "false")
    recorder = Recorder(root, databases, kept)
    recorder.install()
    try:
        assert sandbox.tune("cut", *flags, config=config) == 0
    finally:
        recorder.remove()
    expected = _values(sandbox)
    recorded = tmp_path / "recorded"
    kept.rename(recorded)
    found = moments(recorded)
    assert len(found) > 50
    for number in range(_CUTS):
        moment = found[(2 * number + 1) * len(found) // (2 * _CUTS)]
        restore(moment, root, databases, with_names=bool(number % 2))
        assert sandbox.tune("cut", *flags, config=config) == 0, moment
        assert _values(sandbox) == expected, moment
        study = optuna.load_study(study_name="cut", storage=sandbox.storage)
        tracker = Tracker(sandbox.tracking_uri)
        assert Reconciliation(study, tracker, alive=False).run(dry_run=True) == [], moment
