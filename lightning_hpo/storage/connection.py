"""Connections to Optuna's database: opening it, and waiting while it does not accept connections."""

import functools
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.databases import SQLITE_TIMEOUT_S, DatabaseUrl, dumped, masked
from lightning_hpo.exceptions import InputError, StorageAwayError
from lightning_hpo.terminal.printable import print_line

__all__ = ["NoStudiesError", "connect", "one_line_errors", "open_storage", "wait_for_connections"]

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0


class NoStudiesError(InputError):
    """A database without Optuna's tables."""


def open_storage(
    url: DatabaseUrl, *, create: bool = True, wait_s: float | None = None, sqlite_timeout_s: float | None = None
) -> RDBStorage:
    """Open Optuna's database.

    With `wait_s`, every new connection waits for the database. A server that restarts between two transactions is
    waited for. After one that exits within a transaction, Optuna raises `StorageInternalError`, which ends the command.

    Args:
        url: The database.
        create: Whether to create a missing file and missing tables. Without it nothing is written.
        wait_s: Seconds for which a connection waits, now and later. None: it does not wait.
        sqlite_timeout_s: Seconds for which SQLite waits for a lock, at most 60; by default `wait_s`.

    Returns:
        The storage. It does not wait any more after it was pickled.

    Raises:
        InputError: If the database does not exist or cannot be opened.
        StorageAwayError: If the database has not accepted a connection within `wait_s`.
    """
    with _opening_errors(url):
        if create:
            url.prepare()
            url.create_tables(_optuna_schema)
        else:
            url.require()
        timeout_s = wait_s if sqlite_timeout_s is None else sqlite_timeout_s
        options = _engine_options(url, SQLITE_TIMEOUT_S if timeout_s is None else min(timeout_s, SQLITE_TIMEOUT_S))
        if wait_s is not None:  # Optuna connects while it opens its own engine
            with _engine(url, options) as engine:
                wait_for_connections(engine, url, wait_s)
                engine.connect().close()
        elif not create:
            with connect(url):
                pass
        storage = RDBStorage(url.url, engine_kwargs=options, skip_table_creation=not create)
        if wait_s is not None:
            wait_for_connections(storage.engine, url, wait_s)
        return storage


@functools.cache
def _optuna_schema() -> list[str]:
    storage = RDBStorage("sqlite://")
    try:
        connection: Any = storage.engine.raw_connection().driver_connection
        return dumped(connection)
    finally:
        storage.engine.dispose()


@contextmanager
def connect(url: DatabaseUrl) -> Iterator[sqlalchemy.Connection]:
    """Connect to Optuna's database to read its tables, which is faster than opening an Optuna storage.

    Raises:
        InputError: If the database does not exist, cannot be opened, or contains no studies.
    """
    url.require()
    options = _engine_options(url, SQLITE_TIMEOUT_S)
    with one_line_errors(url), _engine(url, options) as engine, engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table("studies"):
            raise NoStudiesError(f"{url.flag}: {url.masked} contains no studies; tune a study first, or name another")
        yield connection


@contextmanager
def _engine(url: DatabaseUrl, options: dict[str, Any]) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(url.url, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def _engine_options(url: DatabaseUrl, timeout_s: float) -> dict[str, Any]:
    # The pre-ping replaces a connection that a restarted server has closed.
    return {"pool_pre_ping": True} if url.path is None else {"connect_args": {"timeout": timeout_s}}


def wait_for_connections(engine: sqlalchemy.Engine, url: DatabaseUrl, wait_s: float) -> None:
    """Let each new connection of an engine wait until the database accepts it.

    A wrong password cannot be distinguished from a server that is down. `tune` reports it at once even
    so, because its checks open the database without waiting.
    """

    def connect_when_accepted(dialect: sqlalchemy.Dialect, record: Any, args: Any, options: Any) -> Any:
        del record
        start, pause, waiting = time.monotonic(), _FIRST_PAUSE_S, False
        while True:
            try:
                connection = dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                reason = next(iter(masked(str(error)).splitlines()), type(error).__name__)
                left = start + wait_s - time.monotonic()
                if left <= 0:
                    raise StorageAwayError(
                        f"Optuna's database {url.masked} has not accepted a connection for {wait_s:g} seconds: "
                        f"{reason}; run the same command again when it does"
                    ) from error
                if not waiting:
                    waiting = True
                    _print(f"Optuna's database {url.masked} does not accept connections: {reason}; waiting for it")
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                if waiting:
                    _print(f"Optuna's database accepts connections again, after {time.monotonic() - start:.0f} s")
                return connection

    sqlalchemy.event.listen(engine, "do_connect", connect_when_accepted)


def _print(line: str) -> None:
    print_line(line, sys.stderr)


@contextmanager
def one_line_errors(url: DatabaseUrl) -> Iterator[None]:
    """Raise what reading a database raises as an `InputError` of one line, without a password."""
    try:
        with _opening_errors(url):
            yield
    except ValueError as error:  # no JSON: others have written it
        raise InputError(
            f"{url.flag}: a value in {url.masked} cannot be read ({type(error).__name__}); restore a backup"
        ) from error
    except StorageInternalError as error:
        raise InputError(_cannot_open(url, error.__cause__ or error)) from error


@contextmanager
def _opening_errors(url: DatabaseUrl) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError, ImportError, RuntimeError) as error:
        raise InputError(_cannot_open(url, error)) from error


def _cannot_open(url: DatabaseUrl, error: BaseException) -> str:
    reason = masked(str(getattr(error, "orig", None) or error)).splitlines()[0]
    return f"{url.flag}: cannot open {url.masked}: {reason}"
