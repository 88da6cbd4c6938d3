"""Reproduction of a trial, with the config from its folder or from MLflow."""

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from lightning_hpo.cli import main
from tests.study_sandbox import StudySandbox
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]


def test_retrained_trial_gets_its_value_and_changes_are_listed(sandbox: StudySandbox, capfd: Captured) -> None:
    assert sandbox.tune("first", "--study.n_trials", "2", "--study.register", "false", "--trainer.max_epochs", "2") == 0
    best = max(sandbox.trials("first"), key=lambda trial: trial.value or 0.0)
    run_id = best.user_attrs["mlflow_run_id"]
    capfd.readouterr()

    def reproduce(*flags: str) -> list[str]:
        assert (
            main(["reproduce", "first", "--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri, *flags])
            == 0
        )
        return capfd.readouterr().out.splitlines()

    config = sandbox.folder / f"outputs/first/trial_{best.number}/config.yaml"
    command, *rest = reproduce("--run")
    assert command == f"lightning-hpo fit --config {config}"
    found = re.fullmatch(r"value: was ([\d.]+), is ([\d.]+), difference [+-]0\.\d+", rest[-1])
    assert found is not None
    # Not to the last digit: the number of threads changes the order of sums.
    assert (float(found[1]), float(found[2])) == pytest.approx((best.value, best.value), abs=1e-4)
    assert not any(": was" in line for line in rest[:-1])

    text = config.read_text()
    for tag, value in (("version.torch", "0.1"), ("data_fingerprint", "other"), ("git_dirty", "false")):
        sandbox.client.set_tag(run_id, tag, value)
    shutil.rmtree(config.parent)
    copy = Path(f"first-trial_{best.number}.yaml")
    copy.write_text("another file")
    with unchanged(sandbox.folder):
        assert main(["reproduce", "first", "--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri]) == 2
    assert f"its copy from MLflow cannot be written to {copy} (File exists)" in capfd.readouterr().err
    assert copy.read_text() == "another file"
    copy.unlink()
    command, *rest = reproduce("--trial", str(best.number))
    assert command == f"lightning-hpo fit --config {copy}"
    assert yaml.safe_load(copy.read_text()) == yaml.safe_load(text)
    assert any(re.fullmatch(r"torch: was 0\.1, is 2\..*", line) for line in rest)
    assert rest[-1] == f"data and device are not compared: {copy} is from MLflow; read it, and add --run"
    assert "data_fingerprint: was other, is None" in reproduce("--trial", str(best.number), "--run")

    # Who may write to the tracking server names a class of this machine.
    Path("planted.py").write_text("from pathlib import Path\nPath('has_run').touch()\n")
    config = yaml.safe_load(text)
    config["trainer"]["callbacks"] = [{"class_path": "planted.Planted"}]
    sandbox.client.log_text(run_id, yaml.safe_dump(config), "config.yaml")
    copy.unlink()
    assert main(["reproduce", "first", "--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri]) == 2
    assert "is not the config that the trial was trained with" in capfd.readouterr().err
    with contextlib.closing(sqlite3.connect(sandbox.folder / "_optuna/dataaug.db")) as connection:
        # A trial of an earlier version has no digest of its config.
        connection.execute("DELETE FROM trial_user_attributes WHERE key = 'config_sha256'")
        connection.commit()
    assert reproduce("--trial", str(best.number))[0] == f"lightning-hpo fit --config {copy}"
    assert not Path("has_run").exists()

    sandbox.client.delete_run(run_id)
    other = sandbox.trials("first")[1 - best.number]
    optuna.load_study(study_name="first", storage=sandbox.storage).set_user_attr(
        f"mlflow_run_id_of_trial_{other.number}", "0" * 32
    )
    [_, line] = reproduce("--trial", str(other.number))
    assert line == f"changes since then are unknown: MLflow refused: Run with id={'0' * 32} not found"


@pytest.mark.parametrize(
    ("about", "flags", "line"),
    [
        ({}, (), "first: the study was not created by `tune`"),
        ({"agent": "criteria"}, (), "first: no trial is complete yet; select one with --trial"),
        ({"agent": "criteria"}, ("--trial", "3"), "--trial: got 3; first has trials 0 to 0"),
        ({"agent": "criteria"}, ("--trial", "0"), "config.yaml: no such file, and trial 0 has no MLflow run"),
        (
            {"agent": "criteria"},
            ("--trial", "0", "--run"),
            "--run: trial 0 is RUNNING, so it has no value to compare with",
        ),
    ],
)
def test_trial_that_cannot_be_reproduced_is_refused(
    study: optuna.Study,
    storage_url: str,
    tracking_uri: str,
    capsys: Captured,
    about: dict[str, Any],
    flags: tuple[str, ...],
    line: str,
    tmp_path: Path,
) -> None:
    study.ask()
    for key, value in {**about, "outdir": "outputs/first"}.items():
        study.set_user_attr(key, value)
    with unchanged(tmp_path):
        assert main(["reproduce", "first", "--storage", storage_url, "--tracking_uri", tracking_uri, *flags]) == 2
    assert line in capsys.readouterr().err


def test_study_with_several_objectives_is_refused(storage_url: str, tracking_uri: str, capsys: Captured) -> None:
    study = optuna.create_study(study_name="two", storage=storage_url, directions=["maximize", "minimize"])
    study.set_user_attr("agent", "criteria")
    study.tell(study.ask(), (0.5, 0.5))
    assert main(["reproduce", "two", "--storage", storage_url, "--tracking_uri", tracking_uri]) == 2
    assert capsys.readouterr().err == "error: two: the study has 2 objectives; use a study with one\n"
