import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError, StorageAwayError
from lightning_hpo.storage import connection
from lightning_hpo.storage.connection import NoStudiesError, connect, open_storage
from tests.postgres import Postgres


def _url(url: str) -> DatabaseUrl:
    return DatabaseUrl(url, "--study.storage")


class SpyLog:
    """Records the printed lines, and runs an action at the first one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.do: Callable[[], object] = lambda: None

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == 1:
            self.do()


@pytest.fixture
def spy_log(monkeypatch: pytest.MonkeyPatch) -> SpyLog:
    spy_log = SpyLog()
    monkeypatch.setattr(connection, "_print", spy_log)
    return spy_log


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres")
    yield server
    server.cleanup()


@pytest.fixture
def lock(storage_url: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(storage_url.removeprefix("sqlite:///"), isolation_level=None)
    yield connection
    connection.close()


def test_missing_storage_is_not_created_for_reading(tmp_path: Path) -> None:
    url = _url(f"sqlite:///{tmp_path}/none.db")
    for wait_s in (None, 60.0):
        with pytest.raises(InputError, match=rf"there is no database {tmp_path}/none.db; tune a study first, or name"):
            open_storage(url, create=False, wait_s=wait_s)
    with pytest.raises(InputError, match="there is no database"), connect(url):
        pass
    assert list(tmp_path.iterdir()) == []


def test_storage_is_created_with_its_folder(tmp_path: Path) -> None:
    open_storage(_url(f"sqlite:///{tmp_path}/_optuna/dataaug.db"))
    assert (tmp_path / "_optuna" / "dataaug.db").is_file()


def test_storage_of_a_process_killed_while_it_made_the_tables_is_made_again(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "optuna.db")) as half:
        half.execute("CREATE TABLE studies (study_id INTEGER PRIMARY KEY)")
    storage = open_storage(_url(f"sqlite:///{tmp_path}/optuna.db"))
    assert optuna.create_study(study_name="first", storage=storage).study_name == "first"


@pytest.mark.parametrize("url", ["postgresql://me:secret@localhost:1/db", "nosuch://me:secret@host/db", "not a URL"])
def test_storage_that_cannot_be_opened_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        open_storage(_url(url))
    [line] = caught.value.problems
    assert "\n" not in line
    assert "secret" not in line


def test_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database" * 99)
    with pytest.raises(InputError, match=r"--study.storage: cannot open sqlite:///.*text.db: file is not a database"):
        open_storage(_url(f"sqlite:///{path}"))


def test_database_without_studies_is_refused_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(NoStudiesError, match=r"--study.storage: sqlite:///.*empty.db contains no studies"):
        open_storage(_url(f"sqlite:///{path}"), create=False)
    assert path.read_bytes() == b""


def test_sqlite_waits_for_a_lock_no_longer_than_asked(storage_url: str, lock: sqlite3.Connection) -> None:
    study = optuna.create_study(study_name="first", storage=open_storage(_url(storage_url), wait_s=0.05))
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageInternalError) as caught:
        study.set_user_attr("agent", "criteria")
    assert "database is locked" in str(caught.value.__cause__)
    lock.execute("ROLLBACK")
    study.set_user_attr("agent", "criteria")
    assert study.user_attrs == {"agent": "criteria"}


@pytest.mark.parametrize(("wait_s", "timeout_s"), [(None, 60), (0.5, 0.5), (600.0, 60)])
def test_sqlite_timeout_is_at_most_a_minute(storage_url: str, wait_s: float | None, timeout_s: float) -> None:
    storage = open_storage(_url(storage_url), wait_s=wait_s)
    assert storage.engine_kwargs["connect_args"] == {"timeout": timeout_s}


def test_database_that_does_not_accept_connections_is_waited_for(
    storage_url: str, spy_log: SpyLog, tmp_path: Path
) -> None:
    path = Path(storage_url.removeprefix("sqlite:///"))
    storage = open_storage(_url(storage_url), wait_s=60.0)
    storage.engine.dispose()
    away = path.rename(tmp_path / "away.db")
    path.mkdir()

    def bring_back() -> None:
        path.rmdir()
        away.rename(path)

    spy_log.do = bring_back
    assert storage.get_all_studies() == []
    assert len(spy_log.lines) == 2
    assert spy_log.lines[0] == (
        f"Optuna's database {storage_url} does not accept connections: unable to open database file; waiting for it"
    )
    assert spy_log.lines[1].startswith("Optuna's database accepts connections again, after ")


def test_wait_ends_with_one_line_without_the_password(spy_log: SpyLog) -> None:
    with pytest.raises(StorageAwayError) as caught:
        open_storage(_url("postgresql+psycopg://me:secret@localhost:1/db"), wait_s=0.1)
    line = str(caught.value)
    assert line.startswith(
        "Optuna's database postgresql+psycopg://me:***@localhost:1/db has not accepted a connection for 0.1 seconds: "
    )
    assert line.endswith("; run the same command again when it does")
    assert "secret" not in line
    assert "\n" not in line
    [waiting] = spy_log.lines
    assert "secret" not in waiting


def test_missing_table_is_raised_at_once(storage_url: str, lock: sqlite3.Connection, spy_log: SpyLog) -> None:
    study = optuna.create_study(study_name="first", storage=open_storage(_url(storage_url), wait_s=60.0))
    lock.execute("DROP TABLE study_user_attributes")
    with pytest.raises(StorageInternalError):
        study.set_user_attr("agent", "criteria")
    assert spy_log.lines == []


def test_restarted_server_is_waited_for(server: Postgres, spy_log: SpyLog) -> None:
    url = _url(server.database("optuna"))
    spy_log.do = server.start
    server.stop()
    study = optuna.create_study(study_name="first", storage=open_storage(url, wait_s=120.0), direction="maximize")
    trial = study.ask()
    assert len(spy_log.lines) == 2, spy_log.lines
    for step in range(2):
        spy_log.lines.clear()
        server.stop()
        trial.report(0.5, step)
        assert len(spy_log.lines) == 2, spy_log.lines
    spy_log.lines.clear()
    server.stop()
    server.start()  # the connection in the pool is closed, and a new one is accepted at once
    study.tell(trial, 0.5)
    assert spy_log.lines == []
    [stored] = study.trials
    assert (stored.state, stored.intermediate_values) == (TrialState.COMPLETE, {0: 0.5, 1: 0.5})


def test_server_that_exits_within_a_transaction_ends_the_call(server: Postgres, spy_log: SpyLog) -> None:
    storage = open_storage(_url(server.database("optuna")), wait_s=120.0)
    study = optuna.create_study(study_name="first", storage=storage)

    @sqlalchemy.event.listens_for(storage.engine, "before_cursor_execute", once=True)
    def stop(*arguments: object) -> None:
        server.stop()

    with pytest.raises(StorageInternalError):
        study.set_user_attr("agent", "criteria")
    server.start()
    study.set_user_attr("agent", "criteria")
    assert study.user_attrs == {"agent": "criteria"}
    assert spy_log.lines == []
