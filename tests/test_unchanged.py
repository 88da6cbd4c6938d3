import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.unchanged import unchanged


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(statement)


CHANGES: dict[str, Callable[[Path], object]] = {
    "new file": lambda folder: (folder / "new").touch(),
    "new folder": lambda folder: (folder / "new").mkdir(),
    "changed file": lambda folder: (folder / "a/file").write_text("y"),
    "deleted file": lambda folder: (folder / "a/file").unlink(),
    "new row": lambda folder: _execute(folder / "a.db", "INSERT INTO t VALUES (2)"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("x")
    _execute(tmp_path / "a.db", "CREATE TABLE t (x)")
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_found(folder: Path, change: str) -> None:
    with pytest.raises(AssertionError), unchanged(folder):
        CHANGES[change](folder)


def test_row_that_is_only_in_the_log_of_an_open_database_is_found(folder: Path) -> None:
    database = closing(sqlite3.connect(folder / "a.db", isolation_level=None))
    with database as connection, pytest.raises(AssertionError), unchanged(folder):
        connection.execute("INSERT INTO t VALUES (3)")


def test_reading_a_database_is_no_change(folder: Path) -> None:
    _execute(folder / "a.db", "INSERT INTO t VALUES (2)")
    with unchanged(folder, "note"):
        _execute(folder / "a.db", "SELECT * FROM t")
        (folder / "note").touch()
