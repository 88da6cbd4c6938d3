"""A folder with both databases, in which whole studies of a foreign module run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial

from lightning_hpo.cli import main
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.storage.settings import StudySettings

CONFIG: dict[str, Any] = {
    "model": {"class_path": "tests.foreign.ForeignModule"},
    "data": {"class_path": "tests.foreign.ForeignData"},
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "num_sanity_val_steps": 0},
    "search_space": {"model.lr": {"low": 1.0e-3, "high": 1.0, "log": True}, "model.hidden": {"low": 2, "high": 16}},
}


class StudySandbox:
    """A folder with both databases, in which studies run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = f"sqlite:///{folder}/_optuna/dataaug.db"
        self.tracking_uri = f"sqlite:///{folder}/mlflow.db"

    def arguments(self, study: str, *flags: str, config: dict[str, Any] | None = None) -> list[str]:
        path = self.folder / f"{study}.yaml"
        path.write_text(yaml.safe_dump(CONFIG | (config or {})), encoding="utf-8")
        where = ["--study.storage", self.storage, "--study.tracking_uri", self.tracking_uri]
        return ["tune", "--config", str(path), "--study.name", study, *where, "--study.outdir", self.outdir, *flags]

    @property
    def outdir(self) -> str:
        return str(self.folder / "outputs")

    def tune(self, study: str, *flags: str, config: dict[str, Any] | None = None) -> int:
        return main(self.arguments(study, *flags, config=config))

    def trials(self, study: str) -> list[FrozenTrial]:
        return optuna.load_study(study_name=study, storage=self.storage).get_trials()

    def runs(self, study: str) -> dict[int, Run]:
        client = self.client
        experiment = client.get_experiment_by_name(f"foreignmodule-{study}")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert len({run.data.tags["optuna_trial"] for run in runs}) == len(runs)
        return {int(run.data.tags["optuna_trial"]): run for run in runs}

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking_uri, self.tracking_uri)

    def steps(self, run: Run, metric: str) -> list[int]:
        return [point.step for point in self.client.get_metric_history(run.info.run_id, metric)]


def ready_sandbox(folder: Path, monkeypatch: pytest.MonkeyPatch, ready_databases: Any) -> StudySandbox:
    """Make the folder with its databases, and go there."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    (folder / "_optuna").mkdir()
    ready_databases(folder, "mlflow.db")
    return StudySandbox(folder)


def wait_for(condition: Callable[[], bool], limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def study_flags(*arguments: str) -> Any:
    config = ["--model", "tests.foreign.ForeignModule", "--data", "tests.foreign.ForeignData"]
    return AgentCLI([*config, *arguments], instantiate=False, study=StudySettings).config.study
