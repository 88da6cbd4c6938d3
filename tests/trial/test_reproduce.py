"""A trial made again, from its folder and from its run."""

import re
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from lightning_hpo.cli import main
from tests.study_sandbox import StudySandbox

Captured = pytest.CaptureFixture[str]


def test_a_trial_reaches_its_value_again_and_what_differs_is_said(sandbox: StudySandbox, capfd: Captured) -> None:
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
    found = re.fullmatch(r"value: ([\d.]+) then, ([\d.]+) now, difference [+-]0\.\d+", rest[-1])
    assert found is not None
    # Not to the last digit: how many threads add up what a sum holds is not the trial's.
    assert (float(found[1]), float(found[2])) == pytest.approx((best.value, best.value), abs=1e-4)
    assert not any("then" in line for line in rest[:-1])

    text = config.read_text()
    for tag, value in (("version.torch", "0.1"), ("data_fingerprint", "other"), ("git_dirty", "false")):
        sandbox.client.set_tag(run_id, tag, value)
    shutil.rmtree(config.parent)
    anew = Path(f"first-trial_{best.number}.yaml")
    anew.write_text("of somebody else")
    assert main(["reproduce", "first", "--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri]) == 2
    assert f"{anew}, where it would be written anew from its run, cannot be (File exists)" in capfd.readouterr().err
    assert anew.read_text() == "of somebody else"
    anew.unlink()
    command, *rest = reproduce("--trial", str(best.number))
    assert command == f"lightning-hpo fit --config {anew}"
    assert yaml.safe_load(anew.read_text()) == yaml.safe_load(text)
    assert "data_fingerprint: other then, None now" in rest
    assert any(re.fullmatch(r"torch: 0\.1 then, 2\..* now", line) for line in rest)

    sandbox.client.delete_run(run_id)
    other = sandbox.trials("first")[1 - best.number]
    optuna.load_study(study_name="first", storage=sandbox.storage).set_user_attr(
        f"mlflow_run_id_of_trial_{other.number}", "0" * 32
    )
    [_, line] = reproduce("--trial", str(other.number))
    assert line == "what it was made with is not known: its run is gone, or MLflow does not answer"


@pytest.mark.parametrize(
    ("about", "flags", "line"),
    [
        ({}, (), "first: it was not tuned here"),
        ({"agent": "criteria"}, (), "first: no trial is complete yet; name one with --trial"),
        ({"agent": "criteria"}, ("--trial", "3"), "--trial: got 3; first has the trials 0 to 0"),
        ({"agent": "criteria"}, ("--trial", "0"), "config.yaml: the config of trial 0 is gone, and it has no run"),
        (
            {"agent": "criteria"},
            ("--trial", "0", "--run"),
            "--run: trial 0 is RUNNING: it has no value to compare with",
        ),
    ],
)
def test_what_cannot_be_made_again_is_refused(
    study: optuna.Study,
    storage_url: str,
    tracking_uri: str,
    capsys: Captured,
    about: dict[str, Any],
    flags: tuple[str, ...],
    line: str,
) -> None:
    study.ask()
    for key, value in {**about, "outdir": "outputs/first"}.items():
        study.set_user_attr(key, value)
    assert main(["reproduce", "first", "--storage", storage_url, "--tracking_uri", tracking_uri, *flags]) == 2
    assert line in capsys.readouterr().err
