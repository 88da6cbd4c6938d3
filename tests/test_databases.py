import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lightning_hpo.databases import (
    DatabaseUrl,
    default_storage,
    default_tracking_uri,
    expand_home,
    masked,
    registry_problems,
)
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.settings import StudySettings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql+psycopg2://user:se/cret@host/db", "postgresql+psycopg2://user:***@host/db"),
        ("mysql://:secret@host/db", "mysql://:***@host/db"),
        ("https://user:secret@mlflow.example.org", "https://user:***@mlflow.example.org"),
        ("postgresql://host/db?user=me&password=secret&port=1", "postgresql://host/db?user=me&password=***&port=1"),
        (
            "postgresql://host/db?sslmode=verify-full&sslpassword=s",
            "postgresql://host/db?sslmode=verify-full&sslpassword=***",
        ),
        ("https://host?access_token=s&api_key=s", "https://host?access_token=***&api_key=***"),
        ("postgresql://me:it's my se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?password=it's my secret", "postgresql://host/db?password=***"),
        ("--study.storage=mysql://me:a b'c@host/db", "--study.storage=mysql://me:***@host/db"),
        ("cannot reach 'mysql://a:it's se cret@b/c' now", "cannot reach 'mysql://a:***@b/c' now"),
        ("got https://host?key=it's&mode=ro; use another", "got https://host?key=***&mode=ro; use another"),
        (
            "a: mysql://me:secret@one/a\nb: 'mysql://me:secret@two/b'",
            "a: mysql://me:***@one/a\nb: 'mysql://me:***@two/b'",
        ),
        ("neither mysql://me:secret@one nor http://token@two", "neither mysql://me:***@one nor http://***@two"),
        ("cannot reach 'mysql://a:secret@b/c' now", "cannot reach 'mysql://a:***@b/c' now"),
    ],
)
def test_password_is_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///mlflow.db",
        "sqlite:///file:studies.db?mode=ro&uri=true&timeout=60",
        "sqlite:////home/me@host/studies.db",
        "http://localhost:5000",
        "postgresql://host:5432/db",
        "postgresql://user@host/db",
    ],
)
def test_url_without_a_password_is_unchanged(url: str) -> None:
    assert masked(url) == DatabaseUrl(url, "--x").masked == url


def test_text_about_a_server_is_unchanged() -> None:
    text = "http://localhost:5000 has no models:/best@production; see docs?"
    assert masked(f"error: {text}") == f"error: {text}"


def test_password_is_not_in_the_repr() -> None:
    url = DatabaseUrl("postgresql://user:secret@host/db", "--x")
    assert url.masked == "postgresql://user:***@host/db"
    assert "secret" not in repr(url)


def test_relative_url_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DatabaseUrl("sqlite:///_optuna/dataaug.db", "--x").path == tmp_path / "_optuna" / "dataaug.db"


def test_absolute_url_has_its_path() -> None:
    assert DatabaseUrl("sqlite:////data/mlflow.db", "--x").path == Path("/data/mlflow.db")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "postgresql://u:p@host/db", "mysql+pymysql://host/db", "http://host:1"]
)
def test_other_databases_have_no_path_and_are_not_checked(url: str) -> None:
    parsed = DatabaseUrl(url, "--x")
    assert (parsed.path, parsed.is_missing, parsed.is_server) == (None, False, url.startswith("http"))
    parsed.require()
    parsed.check()
    parsed.prepare()


def test_text_that_is_not_a_url_is_refused() -> None:
    message = r"--x: 'mlflow\.db' is not a database URL; use e\.g\. sqlite:///studies\.db"
    with pytest.raises(InputError, match=message):
        DatabaseUrl("mlflow.db", "--x")


def test_url_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DatabaseUrl("sqlite:///a.db", "--x").url = "sqlite:///b.db"  # type: ignore[misc]


def test_missing_file_is_refused_where_it_is_required_and_passes_the_check(tmp_path: Path) -> None:
    url = DatabaseUrl(f"sqlite:///{tmp_path}/none.db", "--x")
    assert url.is_missing
    with pytest.raises(InputError, match=rf"^--x: there is no database {tmp_path}/none\.db; tune a study first, or "):
        url.require()
    url.check()
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database" * 99)
    with pytest.raises(InputError, match=r"^--x: .*text\.db cannot be read as an SQLite database: file is not a data"):
        DatabaseUrl(f"sqlite:///{tmp_path}/text.db", "--x").check()


def test_damaged_database_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x PRIMARY KEY)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"{number:0100}",) for number in range(500)])
        connection.commit()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        DatabaseUrl(f"sqlite:///{path}", "--x").check()
    [line] = caught.value.problems
    assert line.startswith("--x: ")
    assert "\n" not in line
    assert path.read_bytes() == content


def test_sqlite_is_prepared_for_many_writers(tmp_path: Path) -> None:
    url = DatabaseUrl(f"sqlite:///{tmp_path}/new/folder/study.db", "--x")
    url.prepare()
    assert url.path is not None
    with closing(sqlite3.connect(url.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("CREATE TABLE kept (x)")
    url.prepare()
    with closing(sqlite3.connect(url.path)) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_sqlite_on_a_network_has_no_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = DatabaseUrl(f"sqlite:///{tmp_path}/study.db", "--study.storage")
    url.prepare()
    assert not url.warning
    monkeypatch.setattr("lightning_hpo.databases.network_filesystem", lambda _: "nfs4")
    assert f"--study.storage: {tmp_path}/study.db is on a network (nfs4)" in str(url.warning)
    assert url.path is not None
    with closing(sqlite3.connect(url.path)) as used:
        used.execute("CREATE TABLE kept (x)")
        url.prepare()  # a process of an earlier version uses the log
        assert used.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    url.prepare()
    with closing(sqlite3.connect(url.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_environment_names_the_default_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_storage() == "sqlite:///_optuna/dataaug.db"
    assert default_tracking_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///a.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    assert (default_storage(), default_tracking_uri()) == ("sqlite:///a.db", "http://b")


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@host:port/db", "not a url:secret", "mysql://me:secret@[::1/db"]
)
def test_bad_url_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as error:
        DatabaseUrl(url, "--storage")
    [line] = error.value.problems
    assert line.startswith("--storage: ")
    assert line.endswith(" is not a database URL; use e.g. sqlite:///studies.db")
    assert "me:secret" not in line


def _rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())[1:-1]


SCHEMA = ["CREATE TABLE a (x);", "CREATE TABLE b (y);", 'INSERT INTO "b" VALUES(1);']


@pytest.mark.parametrize(
    "existing",
    [
        pytest.param([], id="empty file"),
        pytest.param(["CREATE TABLE a (old)"], id="first table of a killed process"),
        pytest.param(["CREATE TABLE a (old)", "CREATE TABLE _alembic_tmp_a (old)"], id="killed in a migration"),
    ],
)
def test_unused_database_gets_all_tables(tmp_path: Path, existing: list[str]) -> None:
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in existing:
            connection.execute(statement)
    path.touch()
    DatabaseUrl(f"sqlite:///{path}", "--x").create_tables(lambda: SCHEMA)
    assert _rows(path) == SCHEMA


@pytest.mark.parametrize(
    "existing",
    [
        pytest.param(["CREATE TABLE a (old);", 'INSERT INTO "a" VALUES(1);'], id="rows"),
        pytest.param(["CREATE TABLE a (old);", "CREATE TABLE orders (x);"], id="empty tables of another program"),
    ],
)
def test_used_database_is_left_alone(tmp_path: Path, existing: list[str]) -> None:
    path = tmp_path / "used.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in existing:
            connection.execute(statement)
    DatabaseUrl(f"sqlite:///{path}", "--x").create_tables(lambda: SCHEMA)
    assert _rows(path) == existing


def test_interrupted_creation_leaves_no_table(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    url = DatabaseUrl(f"sqlite:///{path}", "--x")
    with pytest.raises(sqlite3.OperationalError):
        url.create_tables(lambda: [*SCHEMA, "interrupted"])
    assert _rows(path) == []


def test_slower_of_two_processes_keeps_the_rows_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    url = DatabaseUrl(f"sqlite:///{path}", "--x")

    def schema_after_the_other() -> list[str]:
        url.create_tables(lambda: [*SCHEMA, 'INSERT INTO "a" VALUES(2);'])
        return SCHEMA

    url.create_tables(schema_after_the_other)
    assert 'INSERT INTO "a" VALUES(2);' in _rows(path)


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+pysqlite"])
def test_home_folder_is_expanded(driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"{driver}:///~/studies.db"
    assert DatabaseUrl(url, "--storage").path == tmp_path / "studies.db"
    assert DatabaseUrl(url, "--storage").url == f"{driver}:///{tmp_path}/studies.db"
    settings = StudySettings(name="a", storage=url, tracking_uri=url, outdir="~/outputs")
    assert settings.folder == tmp_path / "outputs/a"
    assert settings.storage == settings.tracking_uri == f"{driver}:///{tmp_path}/studies.db"


@pytest.mark.parametrize("url", ["http://me~/x", "postgresql://me:~@host/db", "sqlite:///a/~/b.db", "sqlite://"])
def test_other_urls_are_unchanged(url: str) -> None:
    assert expand_home(url) == url


def test_another_registry_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://me:s3cret@host")
    [line] = registry_problems("sqlite:///mlflow.db")
    assert line.startswith("MLFLOW_REGISTRY_URI: got http://me:***@host, but models are registered where the runs are")
    assert registry_problems("http://me:s3cret@host/") == []
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert registry_problems("sqlite:///mlflow.db") == []
