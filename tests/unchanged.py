"""Comparison of a folder before and after a refused command."""

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_SQLITE = b"SQLite format 3\0"
_NO_RESULTS = {".cache", "__pycache__"}
_LOGS = ("-wal", "-shm")
"""Files in which SQLite keeps the latest transactions; they are read with their database."""


@contextmanager
def unchanged(folder: Path, *written: str) -> Iterator[None]:
    """Fail if the block has created, deleted or changed anything in a folder, also in its databases.

    Args:
        folder: Folder of the databases, the study folders and the artifacts.
        written: Names of files that the test itself writes within the block.
    """
    before = _contents(folder, written)
    yield
    after = _contents(folder, written)
    names = sorted(before.keys() | after.keys())
    assert {name for name in names if before.get(name) != after.get(name)} == set()


def _contents(folder: Path, written: tuple[str, ...]) -> dict[str, str]:
    """Return a hash of each file, and a word for each folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if _NO_RESULTS.isdisjoint(path.relative_to(folder).parts) and name not in written and not name.endswith(_LOGS):
            found[name] = "folder" if path.is_dir() else _hash(path)
    return found


def _hash(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(_SQLITE):
        # Even a reader may move transactions from the log into the file, so the rows are compared.
        content = "\n".join(_rows(path)).encode() or content
    return hashlib.sha256(content).hexdigest()


def _rows(path: Path) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        for name in (path.name, *(path.name + log for log in _LOGS)):
            if path.with_name(name).exists():
                shutil.copy(path.with_name(name), scratch)
        with closing(sqlite3.connect(Path(scratch) / path.name)) as connection:
            try:
                return list(connection.iterdump())
            except sqlite3.DatabaseError:  # damaged on purpose: its bytes are compared
                return []
