"""The URLs of the two databases, and SQLite made fit for many processes."""

import os
import re
import sqlite3
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lightning_hpo.exceptions import InputError

__all__ = [
    "SQLITE_TIMEOUT_S",
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
    url = re.sub(r"(?<=://)([^/@:\s]*):[^@\s]*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&]password=)[^&\s'\"]*", "***", url)


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite URL; None for any other database or server.

    Raises:
        InputError: If it is no URL at all.
    """
    if re.match(r"https?://", url):
        return None
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InputError(f"{masked(url)!r} is no database URL; use e.g. sqlite:///mlflow.db") from error
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
