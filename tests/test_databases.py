import sqlite3
from pathlib import Path

import pytest

from lightning_hpo.databases import default_storage, default_tracking_uri, masked, prepare_sqlite, sqlite_path
from lightning_hpo.exceptions import InputError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql+psycopg2://user:se/cret@host/db", "postgresql+psycopg2://user:***@host/db"),
        ("mysql://:secret@host/db", "mysql://:***@host/db"),
        ("https://user:secret@mlflow.example.org", "https://user:***@mlflow.example.org"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("cannot reach 'mysql://a:secret@b/c' now", "cannot reach 'mysql://a:***@b/c' now"),
    ],
)
def test_a_password_is_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url", ["sqlite:///mlflow.db", "http://localhost:5000", "postgresql://host:5432/db", "postgresql://user@host/db"]
)
def test_a_url_without_a_password_stays_as_it_is(url: str) -> None:
    assert masked(url) == url


def test_the_path_of_a_relative_url_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///_optuna/dataaug.db", "--x") == tmp_path / "_optuna" / "dataaug.db"


def test_the_path_of_an_absolute_url() -> None:
    assert sqlite_path("sqlite:////data/mlflow.db", "--x") == Path("/data/mlflow.db")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "postgresql://u:p@host/db", "mysql+pymysql://host/db", "http://host:1"]
)
def test_what_is_no_sqlite_file_has_no_path(url: str) -> None:
    assert sqlite_path(url, "--x") is None


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(InputError, match=r"'mlflow\.db' is no database URL; use e\.g\. sqlite:///studies\.db"):
        sqlite_path("mlflow.db", "--x")


def test_sqlite_is_prepared_for_many_writers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "study.db"
    prepare_sqlite(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("CREATE TABLE kept (x)")
    connection.close()
    prepare_sqlite(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    connection.close()


def test_the_environment_names_the_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_storage() == "sqlite:///_optuna/dataaug.db"
    assert default_tracking_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///a.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    assert (default_storage(), default_tracking_uri()) == ("sqlite:///a.db", "http://b")
