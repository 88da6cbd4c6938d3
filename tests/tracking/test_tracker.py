import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _initialize_tables
from sqlalchemy.exc import PendingRollbackError

from lightning_hpo.exceptions import InputError
from lightning_hpo.tracking.tracker import Tracker
from tests.tracking.fake_server import as_json, fake_server


def _artifact(tracker: Tracker, run_id: str, name: str) -> str:
    return Path(download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=tracker.uri)).read_text()


def test_experiment_is_created_once(tracker: Tracker, tmp_path: Path) -> None:
    made = tracker.experiment("criteria-first")
    assert tracker.experiment("criteria-first") == made != tracker.experiment("criteria-second")
    location = tracker.client.get_experiment(made).artifact_location
    assert location == str(tmp_path / "mlruns" / "criteria-first")


def test_run_has_its_name_and_tags(tracker: Tracker) -> None:
    run_id = tracker.start_run(tracker.experiment("criteria-first"), "trial_3", {"optuna_trial": "3"})
    run = tracker.client.get_run(run_id)
    assert (run.info.run_name, run.data.tags["optuna_trial"], run.info.status) == ("trial_3", "3", "RUNNING")


def test_params_beyond_the_limit_of_a_call_are_logged(tracker: Tracker, run_id: str) -> None:
    params = {f"model.p{number}": number for number in range(251)}
    tracker.log_params(run_id, params)
    tracker.log_params(run_id, params)
    logged = tracker.client.get_run(run_id).data.params
    assert logged == {key: str(value) for key, value in params.items()}


def test_long_param_is_cut_to_the_limit_of_mlflow(tracker: Tracker, run_id: str) -> None:
    tracker.log_params(run_id, {"long": "x" * 9000})
    assert set(tracker.client.get_run(run_id).data.params["long"]) == {"x"}


def test_config_is_logged_as_yaml_and_json(tracker: Tracker, run_id: str) -> None:
    config = {"model": {"init_args": {"lr": 1.0e-05}}, "trainer": {"logger": False}}
    tracker.log_config(run_id, config, yaml.safe_dump(config))
    assert yaml.safe_load(_artifact(tracker, run_id, "config.yaml")) == config
    assert json.loads(_artifact(tracker, run_id, "config.json")) == config


def test_metrics_have_their_step(tracker: Tracker, run_id: str) -> None:
    tracker.log_metrics(run_id, {"val_metric": 0.5, "val_loss": float("nan")}, step=0, time_ms=1000)
    tracker.log_metrics(run_id, {"val_metric": 0.75}, step=2, time_ms=2000)
    tracker.log_metrics(run_id, {"val_metric": 0.75}, step=2, time_ms=2000)
    history = tracker.client.get_metric_history(run_id, "val_metric")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (2, 0.75)]
    assert tracker.logged_steps(run_id, "val_metric") == {0, 2}
    assert tracker.logged_steps(run_id, "none") == set()


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED", "SCHEDULED", "RUNNING"])
def test_status_is_set_with_its_tags(tracker: Tracker, run_id: str, status: str) -> None:
    tracker.set_status(run_id, "FAILED", {})
    tracker.set_status(run_id, status, {"ended_by": "pruned"})
    run = tracker.client.get_run(run_id)
    assert (run.info.status, run.data.tags["ended_by"]) == (status, "pruned")


def test_runs_leave_out_the_trash_and_other_statuses(tracker: Tracker) -> None:
    experiment = tracker.experiment("criteria-first")
    made = [
        tracker.start_run(experiment, f"trial_{n}", {"optuna_trial": str(n), "agent": "criteria"}) for n in range(3)
    ]
    bare = tracker.client.create_run(experiment).info.run_id
    tracker.start_run(tracker.experiment("criteria-other"), "trial_0", {"optuna_trial": "0"})
    tracker.set_status(made[1], "KILLED", {})
    tracker.delete_run(made[2])
    assert {run.run_id: run.status for run in tracker.runs(experiment)} == {
        made[0]: "RUNNING",
        made[1]: "KILLED",
        bare: "RUNNING",
    }
    assert [run.run_id for run in tracker.runs(experiment, "KILLED")] == [made[1]]
    found = tracker.run(made[1])
    assert found is not None
    assert (found.status, found.tags["optuna_trial"]) == ("KILLED", "1")
    assert (tracker.run(made[2]), tracker.run("0" * 32)) == (None, None)


def test_database_is_created_with_its_folder(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not (tmp_path / "new").exists()
    assert tracker.client.get_experiment_by_name("criteria-first") is None
    assert (tmp_path / "new" / "mlflow.db").is_file()


@pytest.mark.parametrize(
    "uri",
    ["postgresql://me:secret@localhost/db", "nosuch://me:secret@host/db", "mlflow.db", "file:./mlruns"],
)
def test_unusable_uri_is_one_line_without_its_password(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        Tracker(uri).experiment("criteria-first")
    [line] = caught.value.problems
    assert "\n" not in line
    assert "secret" not in line


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database" * 99)
    with pytest.raises(InputError, match=r"--study.tracking_uri: cannot open sqlite:///.*text.db: file is not a data"):
        Tracker(f"sqlite:///{tmp_path}/text.db").experiment("criteria-first")


@pytest.mark.parametrize("statements", [3, 120, 300])
def test_database_of_a_process_killed_while_it_made_the_tables_is_made_again(tmp_path: Path, statements: int) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    executed = 0

    def count(*arguments: Any) -> None:
        nonlocal executed
        executed += 1
        if executed > statements:
            raise KeyboardInterrupt

    engine = sqlalchemy.create_engine(uri)
    sqlalchemy.event.listen(engine, "before_cursor_execute", count)
    with pytest.raises((KeyboardInterrupt, PendingRollbackError)):
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
    engine.dispose()
    assert Tracker(uri).experiment("criteria-first") == "1"


def test_server_that_repeats_a_page_is_left() -> None:
    again = as_json(200, runs=[], next_page_token="again")
    with fake_server(lambda path: again) as address, pytest.raises(MlflowException, match="the same page again"):
        list(Tracker(address).runs("1"))
