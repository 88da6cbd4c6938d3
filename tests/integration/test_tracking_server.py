"""A study whose MLflow is a server that goes away in the middle and comes back."""

import contextlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from optuna.trial import TrialState

from lightning_hpo.storage.attributes import run_id_of
from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import RUN_STATUS
from tests.study_sandbox import CONFIG, StudySandbox, wait_for


class Server:
    """MLflow's own server, on a free port of this machine."""

    def __init__(self, folder: Path, database: str) -> None:
        self._folder, self._database = folder, database
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self._database]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            # Its spec runners are four more processes, which nothing here asks for anything.
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ready_databases: Any) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    made = Server(folder, ready_databases(folder, "mlflow.db"))
    made.start()
    yield made
    made.kill()


def test_killed_server_gets_every_step_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    sandbox = StudySandbox(tmp_path)
    sandbox.tracking_uri = server.uri
    reached, go = tmp_path / "reached", tmp_path / "go"
    callback = {
        "class_path": "tests.fault_callbacks.WaitForFileOnce",
        "init_args": {"reached": str(reached), "go": str(go)},
    }
    config: dict[str, Any] = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    arguments = sandbox.arguments("away", "--study.n_trials", "3", config=config)
    command = [sys.executable, "-m", "lightning_hpo", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(reached.exists)
        server.kill()
        go.touch()
        wait_for(lambda: len(sandbox.trials("away")) > 1 and sandbox.trials("away")[1].state == TrialState.COMPLETE)
        server.start()
        assert process.stderr is not None
        shown = process.stderr.read()
    assert process.returncode == 0, shown
    assert "MLflow does not answer; training continues" in shown
    assert sandbox.tune("away", "--study.n_trials", "3", config=config) == 0

    trials, runs = sandbox.trials("away"), sandbox.runs("away")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert set(runs) == {0, 1, 2}
    for trial in trials:
        run = runs[trial.number]
        history = sandbox.client.get_metric_history(run.info.run_id, "val_metric")
        assert sorted((point.step, point.value) for point in history) == sorted(trial.intermediate_values.items())
        assert run.info.status == "FINISHED"
        assert run.data.metrics["final_metric"] == trial.value
        assert run.data.params["model.lr"] == str(trial.params["model.lr"])
    study = optuna.load_study(study_name="away", storage=sandbox.storage)
    assert Reconciliation(study, Tracker(server.uri), alive=False).run(dry_run=True) == []
    client = MlflowClient(server.uri, server.uri)
    version = client.get_model_version_by_alias("foreignmodule-best-model", "production")
    assert version.tags["optuna_trial"] == str(study.best_trial.number)


_KILLS = int(os.environ.get("KILLS", "1"))
"""Kills of each of two studies; more of them than a run of all tests has time for are set in the environment."""


def test_two_users_with_one_study_name_keep_all_their_records(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    users = [StudySandbox(tmp_path / name) for name in ("ann", "bob")]
    for user in users:
        (user.folder / "_optuna").mkdir(parents=True)
        user.tracking_uri = server.uri
    trials = 2 * _KILLS + 2
    draw = random.Random(17)
    # Finished trials at which each user's process is killed, the last first.
    kills = [sorted(draw.sample(range(1, trials - 1), _KILLS), reverse=True) for _ in users]
    running: list[subprocess.Popen[bytes] | None] = [None, None]
    while any(kills) or any(process is None or process.poll() != 0 for process in running):
        for number, user in enumerate(users):
            process = running[number]
            if process is None or process.poll() not in (None, 0):
                command = [sys.executable, "-m", "lightning_hpo", *_first(user, trials)]
                with (user.folder / "shown.txt").open("ab") as shown:
                    running[number] = subprocess.Popen(command, cwd=user.folder, stderr=shown, start_new_session=True)
            elif process.poll() is None and kills[number] and _finished(user) >= kills[number][-1]:
                kills[number].pop()
                process.send_signal(draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
                process.wait()
            elif process.poll() == 0:  # it has finished sooner than was looked
                kills[number].clear()
        time.sleep(0.05)  # between two looks at the state
    owned: set[str] = set()
    for user in users:
        study = optuna.load_study(study_name="first", storage=user.storage)
        assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
        assert len(study.trials) == trials
        for trial in study.trials:
            run = user.client.get_run(str(run_id_of(study, trial)))
            assert run.data.tags["study_id"] == study.user_attrs["study_id"]
            assert (run.data.tags["optuna_trial"], run.info.status) == (str(trial.number), RUN_STATUS[trial.state])
            assert run.data.params["model.lr"] == str(trial.params["model.lr"])
            history = user.client.get_metric_history(run.info.run_id, "val_metric")
            assert sorted((point.step, point.value) for point in history) == sorted(trial.intermediate_values.items())
            owned.add(run.info.run_id)
    assert len(owned) == 2 * trials
    [experiment] = [each for each in users[0].client.search_experiments() if each.name == "foreignmodule-first"]
    kept = users[0].client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    assert {run.info.run_id for run in kept if run.info.lifecycle_stage == "active"} == owned


def _finished(user: StudySandbox) -> int:
    path = user.folder / "_optuna/dataaug.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')")
    except sqlite3.OperationalError:  # no file or no tables yet
        return 0
    return int(count)


def _first(user: StudySandbox, trials: int) -> list[str]:
    return user.arguments("first", "--study.n_trials", str(trials), "--study.register", "false")
