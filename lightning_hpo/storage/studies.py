"""The Optuna study: its settings, its storage, its sampler and its pruner."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.databases import (
    SQLITE_TIMEOUT_S,
    masked,
    prepare_sqlite,
    require_file,
    sqlite_path,
)
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.retrying_storage import RetryingStorage
from lightning_hpo.storage.settings import StudySettings

__all__ = [
    "NoStudiesError",
    "create_study",
    "find_study",
    "load_studies",
    "load_study",
    "open_storage",
    "ranked",
    "reading",
]


def open_storage(
    url: str, *, create: bool = True, flag: str = "--study.storage", wait_s: float | None = None
) -> RDBStorage:
    """Open Optuna's database.

    SQLite gets write-ahead logging and a long timeout, so that many processes may write at the same time.

    Args:
        url: An SQLAlchemy URL.
        create: Make the file and the tables when they are missing. Without it nothing is written.
        flag: The flag that named it, for errors.
        wait_s: Seconds for which it is waited for, now and later, whenever it does not answer. None: not at all.

    Returns:
        The storage.

    Raises:
        InputError: If there is no such database, or it cannot be opened.
        StorageAwayError: If it has not answered in that time.
    """
    path = sqlite_path(url, flag)
    with _told(url, flag):
        if path is not None and create:
            prepare_sqlite(path)
        elif path is not None:
            require_file(path, flag)
        if wait_s is not None:
            return RetryingStorage(url, wait_s, engine_kwargs=_engine(path, wait_s), skip_table_creation=not create)
        if not create:
            with reading(url, flag):
                pass
        return RDBStorage(url, engine_kwargs=_engine(path, SQLITE_TIMEOUT_S), skip_table_creation=not create)


def _engine(path: Path | None, wait_s: float) -> dict[str, Any]:
    if path is None:
        return {"pool_pre_ping": True}  # a server that was started anew has forgotten its connections
    return {"connect_args": {"timeout": min(SQLITE_TIMEOUT_S, wait_s)}}


class NoStudiesError(InputError):
    """A database in which Optuna has made no tables yet."""


@contextmanager
def reading(url: str, flag: str) -> Iterator[sqlalchemy.Connection]:
    """A connection to Optuna's database for looking at its tables; Optuna's own storage takes longer to open.

    Args:
        url: An SQLAlchemy URL.
        flag: The flag that named it, for errors.

    Raises:
        InputError: If there is no such database, it cannot be read, or it holds no studies.
    """
    path = sqlite_path(url, flag)
    if path is not None:
        require_file(path, flag)
    with _told(url, flag):
        engine = sqlalchemy.create_engine(url, **_engine(path, SQLITE_TIMEOUT_S))
        try:
            with engine.connect() as connection:
                if not sqlalchemy.inspect(connection).has_table("studies"):
                    raise NoStudiesError(f"{flag}: {masked(url)} holds no studies; tune one first, or name another")
                yield connection
        finally:
            engine.dispose()


@contextmanager
def _told(url: str, flag: str) -> Iterator[None]:
    """What a database raises that cannot be opened, in a line."""
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = masked(str(getattr(error, "orig", None) or error)).splitlines()[0]
        raise InputError(f"{flag}: cannot open {masked(url)}: {reason}") from error


def load_study(name: str, url: str, *, flag: str = "--study", storage_flag: str = "--storage") -> optuna.Study:
    """The study of that name, for reading.

    Args:
        name: The study.
        url: Optuna's database.
        flag: The flag that named the study, for errors.
        storage_flag: The flag that named the database.

    Raises:
        InputError: If the database or the study is not there.
    """
    storage = open_storage(url, create=False, flag=storage_flag)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise InputError(f"{flag} {name}: no such study in {masked(url)}; there are: {names}") from error


def load_studies(name: str | None, url: str) -> list[optuna.Study]:
    """The study of that name, or all studies.

    Raises:
        InputError: If the database or the study is not there.
    """
    if name is not None:
        return [load_study(name, url)]
    storage = open_storage(url, create=False, flag="--storage")
    return [optuna.load_study(study_name=each, storage=storage) for each in optuna.get_all_study_names(storage)]


def find_study(settings: StudySettings) -> optuna.Study | None:
    """The study of these settings as far as it has come, or None; nothing is written.

    Raises:
        InputError: If the database cannot be opened.
    """
    path = sqlite_path(str(settings.storage), "--study.storage")
    if path is not None and not path.is_file():
        return None
    try:
        return optuna.load_study(study_name=settings.name, storage=open_storage(str(settings.storage), create=False))
    except (KeyError, NoStudiesError):
        return None


def create_study(settings: StudySettings, sampler: BaseSampler, pruner: BasePruner) -> optuna.Study:
    """The study of these settings, new or as far as it has come."""
    return optuna.create_study(
        study_name=settings.name,
        storage=open_storage(str(settings.storage), wait_s=settings.storage_wait),
        direction=settings.direction,
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """The complete trials of a study with one objective, the best first."""
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))
