"""A study goes on after a power cut at any moment, with the values of the study that had none."""

import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.study_folder import write_whole
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


@pytest.mark.parametrize("with_names", [False, True])
def test_removed_file_does_not_get_the_content_of_another(tmp_path: Path, with_names: bool) -> None:
    """The file system may give the inode of a removed file to a new one."""
    root, kept = tmp_path / "root", tmp_path / "kept"
    root.mkdir()
    recorder = Recorder(root, [], kept)
    recorder.install()
    try:
        for number in range(20):
            write_whole(root / f"f{number}", f"content {number}")
            if number % 2:
                (root / f"f{number - 1}").unlink()
    finally:
        recorder.remove()
    found = moments(kept)
    assert len(found) >= 60
    restored = set()
    for moment in found:
        restore(moment, root, [], with_names=with_names)
        for path in root.iterdir():
            own = path.name.removeprefix("f").removesuffix(".partial")
            text = path.read_text(encoding="utf-8")
            assert text.strip("\0") in ("", f"content {own}"), path.name
            restored.add(text)
    assert len(restored) >= 20
