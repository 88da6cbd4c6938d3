"""The URLs of the two databases, and SQLite made fit for many processes."""

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lightning_hpo.exceptions import InputError

__all__ = [
    "SQLITE_TIMEOUT_S",
    "check_sqlite",
    "default_storage",
    "default_tracking_uri",
    "masked",
    "prepare_sqlite",
    "require_file",
    "sqlite_path",
]

SQLITE_TIMEOUT_S = 60


def default_storage() -> str:
    """Optuna's database where none is named."""
    return os.environ.get("OPTUNA_STORAGE") or "sqlite:///_optuna/dataaug.db"


def default_tracking_uri() -> str:
    """MLflow's database or server where none is named."""
    return os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def masked(url: str) -> str:
    """The URL, or a text that holds it, with its password replaced by ***."""
    # Up to the last @: a password may hold one.
    url = re.sub(r"(?<=://)([^/@:\s]*):[^\s'\"]*@", r"\1:***@", url)
    # A server's lone user is a token.
    url = re.sub(r"(?<=http://|ttps://)[^/@:\s]+@", "***@", url)
    return re.sub(r"([?&](?:password|passwd|pwd|token)=)[^&\s'\"]*", r"\1***", url)


def sqlite_path(url: str, flag: str) -> Path | None:
    """The file of an SQLite URL; None for any other database or server.

    Args:
        url: The URL.
        flag: The flag that named it, for errors.

    Raises:
        InputError: If it is no URL at all.
    """
    if re.match(r"https?://", url):
        return None
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(f"{flag}: {masked(url)!r} is no database URL; use e.g. sqlite:///studies.db") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database).absolute()


def prepare_sqlite(path: Path) -> None:
    """Make the folder, and set write-ahead logging, which lets many processes write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=SQLITE_TIMEOUT_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def check_sqlite(path: Path, flag: str) -> None:
    """Refuse a file that is no SQLite database; one that is not there is fine, and nothing is written.

    Args:
        path: The file.
        flag: The flag that named it.

    Raises:
        InputError: If SQLite cannot read it.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            [(answer, *_), *_] = connection.execute("PRAGMA quick_check(1)")
    except sqlite3.Error as error:
        raise InputError(f"{flag}: {path} cannot be read as an SQLite database: {error}") from error
    if answer != "ok":
        raise InputError(
            f"{flag}: {path} is damaged ({answer.splitlines()[0]}); nothing was written; take a copy of yesterday, or "
            f"save what can be read: sqlite3 {path} .recover | sqlite3 mended.db"
        )


def require_file(path: Path, flag: str) -> None:
    """Refuse a database file that is not there.

    Args:
        path: The file.
        flag: The flag that named it.

    Raises:
        InputError: If it is not there.
    """
    if not path.is_file():
        raise InputError(f"{flag}: there is no database {path}; tune a study first, or name another")
