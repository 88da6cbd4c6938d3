"""A study that version 0.1.0 paused, and a config that it wrote: this version resumes the one and trains the other.

`tests/fixtures/paused_study/study.tar.gz` is the folder of a user:

- `study.yaml` and `data/`: the config, the demo corpus with 60 posts, and the demo encoder with a width of 32.
- `_optuna/dataaug.db` and `mlflow.db`: trial 0 is complete, trial 1 pruned, trial 2 paused in its second epoch.
- `outputs/paused/`: the configs, the checkpoints, and the outbox of trial 2.

Absolute paths in it start with `/ORIGIN`. `expected.json` holds the trials and metrics after version 0.1.0 resumed the
same study. They equal those of an uninterrupted study.
"""

import csv
import json
import os
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from mlflow import MlflowClient

from lightning_hpo.cli import main

FIXTURE = Path(__file__).parents[1] / "fixtures/paused_study"
ORIGIN = "/ORIGIN"
EXPECTED: list[dict[str, Any]] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))["trials"]
STORAGE = "sqlite:///_optuna/dataaug.db"
CHECKPOINT = Path("outputs/paused/trial_2/last.ckpt")


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user, which is also the working directory."""
    with tarfile.open(FIXTURE / "study.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    _move_from_origin(tmp_path)
    return tmp_path


def _move_from_origin(folder: Path) -> None:
    """Replace the placeholder in the databases and in the checkpoint by the folder."""
    updates = {
        "_optuna/dataaug.db": (("study_user_attributes", "value_json"),),
        "mlflow.db": (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ),
    }
    for database, columns in updates.items():
        connection = sqlite3.connect(folder / database)
        for table, column in columns:
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (ORIGIN, str(folder)))
        connection.commit()
        connection.close()
    checkpoint = torch.load(folder / CHECKPOINT, weights_only=True)
    checkpoint["callbacks"] = _replaced(checkpoint["callbacks"], str(folder))
    torch.save(checkpoint, folder / CHECKPOINT)


def _replaced(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {_replaced(key, folder): _replaced(entry, folder) for key, entry in value.items()}
    return value.replace(ORIGIN, folder) if isinstance(value, str) else value


@pytest.mark.usefixtures("user_folder")
def test_paused_study_is_resumed_as_the_previous_version_would() -> None:
    paused = torch.load(CHECKPOINT, weights_only=True)
    assert (paused["epoch"], paused["ResumeCheckpoint"]["within_epoch"]) == (1, True)
    assert main(["tune", "--config", "study.yaml"]) == 0
    trials = optuna.load_study(study_name="paused", storage=STORAGE).get_trials()
    assert [(trial.number, trial.state.name, trial.params) for trial in trials] == [
        (expected["number"], expected["state"], expected["params"]) for expected in EXPECTED
    ]
    for trial, expected in zip(trials, EXPECTED, strict=True):
        assert trial.value == pytest.approx(expected["value"], abs=1e-6)
        assert _by_text(trial.intermediate_values) == pytest.approx(expected["intermediate_values"], abs=1e-6)
    assert "mlflow_model_uri" in trials[2].user_attrs  # the model of the best epoch was logged after the resume
    # MLflow keeps one pool of connections per URL: a relative one may be connected to another test's file.
    tracking_uri = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri, tracking_uri)
    experiment = client.get_experiment_by_name("criteria-paused")
    assert experiment is not None
    runs = {int(run.data.tags["optuna_trial"]): run for run in client.search_runs([experiment.experiment_id])}
    assert {number: run.info.status for number, run in runs.items()} == {
        expected["number"]: expected["run_status"] for expected in EXPECTED
    }
    assert len(client.search_runs([experiment.experiment_id])) == len(EXPECTED)
    study_id = optuna.load_study(study_name="paused", storage=STORAGE).user_attrs["study_id"]
    assert Path("outputs/paused/study_id").read_text() == f"{study_id}\n"
    assert {run.data.tags["study_id"] for run in runs.values()} == {study_id}
    for trial in trials:
        assert runs[trial.number].info.run_id == trial.user_attrs["mlflow_run_id"]
        for name, steps in EXPECTED[trial.number]["metrics"].items():
            if name == "lr":  # it was that of the embeddings, after the last step of the epoch
                continue
            history = client.get_metric_history(runs[trial.number].info.run_id, name)
            assert [str(point.step) for point in history] == list(steps), name
            # Losses and curves depend on the CPU's floating-point kernels, decisions hardly.
            tolerance = 1e-6 if name in ("val_metric", "final_metric", "best_epoch", "epoch") else 1e-4
            assert _by_text({point.step: point.value for point in history}) == pytest.approx(
                steps, abs=tolerance, nan_ok=True
            )


def _by_text(values: dict[int, float]) -> dict[str, float]:
    """The values by epoch, with keys as JSON has them."""
    return {str(epoch): value for epoch, value in values.items()}


def test_config_of_an_old_trial_is_trained(user_folder: Path) -> None:
    logger = "lightning.pytorch.loggers.CSVLogger"
    config = user_folder / "outputs/paused/trial_0/config.yaml"
    assert "callbacks: null" in config.read_text(encoding="utf-8")
    flags = ["--trainer.logger", logger, "--trainer.logger.save_dir", "logs", "--trainer.max_epochs", "3"]
    assert main(["fit", "--config", os.fspath(config), *flags]) == 0
    (path,) = user_folder.glob("logs/**/metrics.csv")
    with path.open(encoding="utf-8") as file:
        logged = [float(row["val_metric"]) for row in csv.DictReader(file) if row["val_metric"]]
    recorded = EXPECTED[0]["metrics"]["val_metric"]
    assert logged[0] == pytest.approx(recorded["0"], abs=1e-6)
    assert logged == pytest.approx(list(recorded.values()), abs=1e-6)
