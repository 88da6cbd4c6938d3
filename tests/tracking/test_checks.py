import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lightning_hpo.exceptions import InputError
from lightning_hpo.tracking.checks import check_tracking
from lightning_hpo.tracking.tracker import Tracker
from tests.postgres import Postgres
from tests.server import free_port
from tests.tracking.fake_server import PAGE, Reply, as_json, fake_server
from tests.unchanged import unchanged

NAME = "criteria-first"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


class FakeMLflow:
    """Replies of an MLflow server with one experiment.

    Args:
        stage: Stage of the experiment.
        location: Location of its artifacts.
        logged_models: Reply to a search for logged models; MLflow 2 does not know the path.
        artifacts: Reply to the upload of an artifact.
    """

    def __init__(
        self,
        stage: str = "active",
        location: str = "mlflow-artifacts:/1",
        logged_models: Reply = (200, "{}"),
        artifacts: Reply = (200, "{}"),
    ) -> None:
        self._experiment = as_json(
            200,
            experiment={"experiment_id": "1", "name": NAME, "lifecycle_stage": stage, "artifact_location": location},
        )
        self._logged_models, self._artifacts = logged_models, artifacts
        self.paths: list[str] = []

    def __call__(self, path: str) -> Reply:
        self.paths.append(path)
        if path.startswith(_ARTIFACTS):
            return self._artifacts
        return self._logged_models if "logged-models" in path else self._experiment


def _problem(uri: str, name: str | None = NAME) -> str:
    with pytest.raises(InputError) as caught:
        check_tracking(uri, name)
    [line] = caught.value.problems
    assert "\n" not in line
    return line


def _answer(mlflow: FakeMLflow) -> str:
    with fake_server(mlflow) as address:
        return _problem(address)


def test_server_that_can_be_used_is_left_without_the_artifact_of_the_check() -> None:
    with fake_server(mlflow := FakeMLflow()) as address:
        check_tracking(address, NAME)
    put, deleted = [path.rstrip("/") for path in mlflow.paths if path.startswith(_ARTIFACTS)]
    assert put == f"{deleted}/check.txt"
    assert deleted.startswith(f"{_ARTIFACTS}1/check-")


@pytest.mark.parametrize("name", [None, NAME])
@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_server_that_refuses_everything_is_not_said_to_be_silent(status: int, name: str | None) -> None:
    with fake_server(lambda path: (status, PAGE)) as address:
        line = _problem(address, name)
    assert line.startswith(f"--study.tracking_uri: the server at {address} answered with status {status} (")


def test_page_of_another_program_is_refused() -> None:
    with fake_server(lambda path: (200, PAGE)) as address:
        assert _problem(address).endswith("answered with a page that is not MLflow's; check the address")


def test_server_without_logged_models_is_refused() -> None:
    line = _answer(FakeMLflow(logged_models=(404, PAGE)))
    assert "has no logged models (it answered with status 404 (Not Found)); a study needs a server of MLflow 3" in line


def test_artifacts_that_the_server_cannot_write_are_refused_with_their_location() -> None:
    denied = as_json(500, error_code="INTERNAL_ERROR", message="[Errno 13] Permission denied: '/srv/artifacts'")
    line = _answer(FakeMLflow(artifacts=denied))
    assert line.startswith(
        "--study.tracking_uri: artifacts cannot be written to mlflow-artifacts:/1: answered with status 500"
    )


def test_server_that_closes_the_connection_of_an_upload_is_not_said_to_be_silent() -> None:
    line = _answer(FakeMLflow(artifacts=None))
    assert "cannot be written to mlflow-artifacts:/1: closed the connection without an answer; correct" in line


def test_artifact_folder_of_this_machine_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it names a folder of this machine" in _answer(FakeMLflow(location="/proc/mlruns/1"))
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "/proc/mlruns")
    assert "artifacts cannot be written to /proc/mlruns/1: " in _answer(FakeMLflow(location="/proc/mlruns/1"))


@pytest.mark.parametrize("where", ["server", "sqlite"])
def test_deleted_experiment_is_refused_before_the_study(tracker: Tracker, tmp_path: Path, where: str) -> None:
    if where == "server":
        line = _answer(FakeMLflow(stage="deleted"))
    else:
        tracker.client.delete_experiment(tracker.experiment(NAME))
        with unchanged(tmp_path):
            line = _problem(tracker.uri)
    assert line == (
        "experiment criteria-first is deleted in MLflow: restore it (`mlflow experiments restore --experiment-id 1`), "
        "or choose another --study.name"
    )


def test_database_that_can_be_used_is_left_unchanged(tracking_uri: str, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        check_tracking(tracking_uri, NAME)
        check_tracking(f"sqlite:///{tmp_path}/new/mlflow.db", NAME)


def test_read_only_database_is_refused(tracking_uri: str, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    content = bytearray(path.read_bytes())
    content[18] = 3  # a write version that is too new: SQLite only reads the file, whoever asks
    path.write_bytes(content)
    line = _problem(tracking_uri)
    assert line.startswith(f"--study.tracking_uri: cannot write {path}: attempt to write a readonly database; correct")


def test_database_that_another_process_is_writing_passes(tracking_uri: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        check_tracking(tracking_uri, NAME)


@pytest.mark.parametrize("folder", ["/proc/none", "/proc"])
def test_folder_that_takes_no_files_is_refused(folder: str) -> None:
    assert _problem(f"sqlite:///{folder}/mlflow.db").startswith(
        f"--study.tracking_uri: cannot write {folder}/mlflow.db: "
    )


def test_artifact_folder_in_whose_place_a_file_lies_is_refused(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("")
    assert f"artifacts cannot be written to {tmp_path}/mlruns: Not a directory" in _problem(tracking_uri)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres")
    yield server
    server.cleanup()


def test_wrong_password_and_missing_database_are_named(postgres: Postgres) -> None:
    uri = postgres.database("mlflow")
    check_tracking(uri, NAME)
    line = _problem(uri.replace("/mlflow", "/nosuch"))
    assert 'database "nosuch" does not exist' in line
    line = _problem(uri.replace("postgres:", "stranger:secret"))
    assert "stranger" in line
    assert "secret" not in line


def test_server_that_does_not_answer_is_said_so() -> None:
    line = _problem(f"http://127.0.0.1:{free_port()}")
    assert line.startswith("--study.tracking_uri: no server answers at http://127.0.0.1:")


@pytest.mark.parametrize("name", ["a%20b", "why?"])
def test_path_that_mlflow_would_read_as_a_url_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with (
        unchanged(tmp_path),
        pytest.raises(InputError, match=r"contains % or \?, which MLflow takes for parts of a URL"),
    ):
        check_tracking("sqlite:///mlflow.db", NAME)
