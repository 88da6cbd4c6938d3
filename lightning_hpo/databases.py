"""URLs of the two databases: Optuna's storage, and MLflow's database or server."""

import contextlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.hardware.filesystems import network_filesystem

__all__ = [
    "SQLITE_TIMEOUT_S",
    "DatabaseUrl",
    "default_storage",
    "default_tracking_uri",
    "dumped",
    "expand_home",
    "masked",
    "registry_problems",
]

SQLITE_TIMEOUT_S = 60
"""Seconds for which SQLite waits for a lock that another process holds."""

_URL = re.compile(r"(?:-[\w.-]+=)?([a-z][\w+.-]*)://", re.IGNORECASE)
_PART = re.compile(r"(?<=\n)|(?<=[\s'\"=(\[,])(?=[a-z][\w+.-]*://)", re.IGNORECASE)
"""Where a line begins, or a word that is a URL."""
_HARMLESS_KEYS = {
    *("application_name", "charset", "client_encoding", "connect_timeout", "database", "dbname", "driver", "host"),
    *("hostaddr", "port", "sslmode", "sslrootcert", "target_session_attrs", "timeout", "user"),
    *("cache", "immutable", "isolation_level", "mode", "nolock", "uri"),
}

# Tables in which Optuna and MLflow keep rows that belong to no study.
_WITHOUT_STUDIES = {"alembic_version", "version_info", "workspaces"}


def default_storage() -> str:
    """Return the URL of Optuna's database if no flag names one."""
    return expand_home(os.environ.get("OPTUNA_STORAGE") or "sqlite:///_optuna/dataaug.db")


def default_tracking_uri() -> str:
    """Return the URL of MLflow's database or server if no flag names one."""
    return expand_home(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")


def expand_home(url: str) -> str:
    """Return a database URL with the home folder for `~`, as in `sqlite:///~/studies.db`."""
    head, slashes, path = url.partition(":///")
    if not slashes or not path.startswith("~"):
        return url
    return f"{head}:///{Path(path).expanduser()}"


def registry_problems(tracking_uri: str) -> list[str]:
    """Return a line if MLFLOW_REGISTRY_URI names another registry than that of the runs, where models are registered.

    MLflow would load a registered model from there, and not find it.
    """
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    if not registry or expand_home(registry).rstrip("/") == expand_home(tracking_uri).rstrip("/"):
        return []
    return [
        f"MLFLOW_REGISTRY_URI: got {masked(registry)}, but models are registered where the runs are, in "
        f"{masked(tracking_uri)}; unset it"
    ]


class FilesInUse:
    """SQLite files that a command has opened. SQLite still writes to a file that was deleted, and loses everything.

    Args:
        files: The file of each flag; None for a database without one.
    """

    def __init__(self, files: Mapping[str, Path | None]) -> None:
        self._files = {flag: path for flag, path in files.items() if path is not None}
        self._opened = {path: _file_id(path) for path in self._files.values()}

    def check(self) -> None:
        """Raise a `LightningHpoError` if a file was deleted or replaced."""
        for flag, path in self._files.items():
            if _file_id(path) != self._opened[path]:
                raise LightningHpoError(
                    f"{flag}: {path} was deleted or replaced while the study was using it; restore the file and run "
                    "the same command, or use another --study.name"
                )


def _file_id(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same path; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def masked(text: str) -> str:
    """Return a URL, or a text that contains URLs, with each password replaced by `***`.

    So is each value of a query, such as `?sslpassword=...`, whose key is not known to be harmless.
    """
    alone = _URL.match(text) is not None and "\n" not in text
    return "".join(_masked_part(part, alone=alone) for part in _PART.split(text))


def _masked_part(part: str, *, alone: bool) -> str:
    """Mask a part of a line whose first word may begin a URL. `alone`: the part is a URL and nothing else."""
    start = _URL.match(part)
    if start is None:
        return part
    rest = part[start.end() :]
    user, at, host = rest.rpartition("@")  # the last: a password may contain one
    name, colon, password = user.partition(":")
    if at and not re.search(r"[/\s]", name):
        is_port = not alone and re.match(r"\d+(?=[/\s'\",;)])", password)
        if colon and not is_port:
            rest = f"{name}:***@{host}"
        elif not colon and start[1] in ("http", "https"):  # a token
            rest = f"***@{host}"
    # In a text, a quote ends the value unless a letter follows.
    value = "[^&\n]*" if alone else r"(?:[^&\s'\"]|['\"]+(?=\w))*"
    return part[: start.end()] + re.sub(rf"([?&;])([\w.%-]+)=({value})", _masked_value, rest)


def _masked_value(found: re.Match[str]) -> str:
    separator, key, value = found.groups()
    return f"{separator}{key}={value if key.lower() in _HARMLESS_KEYS else '***'}"


@dataclass(frozen=True)
class DatabaseUrl:
    """A parsed database URL. The methods do nothing for databases other than SQLite files.

    Args:
        url: An SQLAlchemy URL, or the address of an HTTP server.
        flag: The flag that named it, for errors.

    Attributes:
        path: The SQLite file; None for any other database or server.

    Raises:
        InputError: If it is not a URL.
    """

    url: str = field(repr=False)
    flag: str
    path: Path | None = field(init=False)

    def __post_init__(self) -> None:
        """Expand the home folder, and parse the URL."""
        object.__setattr__(self, "url", expand_home(self.url))
        object.__setattr__(self, "path", None if self.is_server else self._sqlite_path())

    def _sqlite_path(self) -> Path | None:
        try:
            parsed = make_url(self.url)
        except (ArgumentError, ValueError) as error:  # ValueError: the port is not a number
            raise InputError(
                f"{self.flag}: {self.masked!r} is not a database URL; use e.g. sqlite:///studies.db"
            ) from error
        if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
            return None
        return Path(parsed.database).absolute()

    @property
    def masked(self) -> str:
        """The URL with its password replaced by `***`."""
        return masked(self.url)

    @property
    def is_server(self) -> bool:
        """Whether it is the address of an HTTP server."""
        return self.url.startswith(("http://", "https://"))

    @property
    def is_missing(self) -> bool:
        """Whether it is an SQLite file that does not exist."""
        return self.path is not None and not self.path.is_file()

    def require(self) -> None:
        """Raise an `InputError` if the file does not exist."""
        if self.is_missing:
            raise InputError(f"{self.flag}: there is no database {self.path}; tune a study first, or name another")

    def check(self) -> None:
        """Raise an `InputError` if the file exists but is damaged, or is no SQLite database. Nothing is written."""
        if self.path is None or not self.path.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
                [(answer, *_), *_] = connection.execute("PRAGMA quick_check(1)")
        except sqlite3.Error as error:
            raise InputError(f"{self.flag}: {self.path} cannot be read as an SQLite database: {error}") from error
        if answer != "ok":
            raise InputError(
                f"{self.flag}: {self.path} is damaged ({answer.splitlines()[0]}); nothing was written; restore a "
                f"backup, or save what can be read: sqlite3 {self.path} .recover | sqlite3 recovered.db"
            )

    def check_writable(self) -> None:
        """Raise an `InputError` if the file cannot be written, or its folder takes no files. Nothing is written."""
        if self.path is None:
            return
        try:
            folder = next(parent for parent in self.path.parents if parent.exists())
            with tempfile.TemporaryFile(dir=folder):  # SQLite puts its log into the same folder
                pass
            if self.path.exists():
                with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("ROLLBACK")
        except (OSError, sqlite3.Error) as error:
            if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                return  # another process writes
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"{self.flag}: cannot write {self.path}: {reason}; correct its permissions and those of its folder, or "
                "name another database"
            ) from error

    def prepare(self) -> None:
        """Create the folder and turn on write-ahead logging, with which many processes can write at the same time.

        On a network it is turned off: its index is in shared memory, which other machines do not see.
        """
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        on_network = network_filesystem(self.path) is not None
        timeout = 0 if on_network else SQLITE_TIMEOUT_S
        with contextlib.closing(sqlite3.connect(self.path, timeout=timeout)) as connection:
            if on_network:
                with contextlib.suppress(sqlite3.OperationalError):  # a process that uses the log keeps it
                    connection.execute("PRAGMA journal_mode=DELETE")
            else:
                # A file system without shared memory has no log: SQLite keeps its mode, which is slower and as safe.
                connection.execute("PRAGMA journal_mode=WAL")

    @property
    def warning(self) -> str | None:
        """A line about a file that is on a network; None for any other database."""
        kind = None if self.path is None else network_filesystem(self.path)
        if kind is None:
            return None
        return (
            f"{self.flag}: {self.path} is on a network ({kind}), where SQLite is slow and its locks may not work; use "
            "a local disk, or a database server (docs/databases.md)"
        )

    def create_tables(self, schema: Callable[[], Sequence[str]]) -> None:
        """Create the tables of a database that has no rows yet, in one transaction: a killed process leaves no part.

        Empty tables that a killed process of an earlier version has left are replaced.

        Args:
            schema: Called if the tables are needed; returns SQL statements that create and fill them in a new file.
        """
        if self.path is None or not self.path.exists():
            return
        with contextlib.closing(
            sqlite3.connect(self.path, timeout=SQLITE_TIMEOUT_S, isolation_level=None)
        ) as connection:
            if _has_rows(connection):
                return
            statements = schema()
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have been faster, or the tables may be those of another program.
            if not _has_rows(connection) and _without_copies(_tables(connection)) <= _tables_of(statements):
                for table in _tables(connection):
                    connection.execute(f'DROP TABLE "{table}"')
                for statement in statements:
                    connection.execute(statement)
            connection.execute("COMMIT")


def dumped(connection: sqlite3.Connection) -> list[str]:
    """Return the SQL statements that create a database's tables with their rows, without those of a transaction."""
    return [line for line in connection.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return {name for (name,) in rows if not name.startswith("sqlite_")}


def _without_copies(tables: set[str]) -> set[str]:
    """Leave out the tables into which a migration copies others."""
    return {name for name in tables if not name.startswith("_alembic_tmp_")}


def _tables_of(statements: Sequence[str]) -> set[str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        return _tables(connection)


def _has_rows(connection: sqlite3.Connection) -> bool:
    tables = _tables(connection) - _WITHOUT_STUDIES
    return any(connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() for table in tables)
