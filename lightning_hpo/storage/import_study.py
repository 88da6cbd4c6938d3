"""Import of studies from another Optuna database."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import optuna
from optuna.exceptions import DuplicatedStudyError, OptunaError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from lightning_hpo.databases import SQLITE_TIMEOUT_S, DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, TrialKey
from lightning_hpo.storage.connection import one_line_errors, open_storage
from lightning_hpo.storage.optuna_private import set_trial_user_attr
from lightning_hpo.storage.stored_values import require_readable
from lightning_hpo.storage.studies import StudyDatabase

__all__ = ["import_studies"]


def import_studies(source: DatabaseUrl, storage: DatabaseUrl, name: str | None = None) -> list[str]:
    """Copy studies with all their trials by `optuna.copy_study`.

    A trial that is running in the source becomes a failed trial, because its process reports to the source. A trial
    that waits in the source also waits in the copy: the next `tune` runs it.

    Args:
        source: The database to read. Nothing in it is changed; of an SQLite file, a copy is opened.
        storage: The database to write.
        name: Name of the one study; None for all studies.

    Returns:
        One line for each imported study.

    Raises:
        InputError: If the source cannot be read or has no such study, or if the storage has a study of that name.
            Nothing has been written then.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    same_file = source.path is not None and storage.path is not None and source.path.resolve() == storage.path.resolve()
    if same_file or make_url(source.url) == make_url(storage.url):
        raise InputError(f"--from: {source.masked} is the storage itself; name another database, or --storage")
    with _open_source(source) as opened:
        with one_line_errors(source):
            names = _names(opened, source, name)
            for each in names:
                require_readable(optuna.load_study(study_name=each, storage=opened))
        database = StudyDatabase(storage)
        existing = [each for each in names if database.find(each) is not None]
        if existing:
            raise InputError([_already_there(each, storage) for each in existing])
        target = open_storage(storage)
        return [_copy_study(each, opened, target, storage) for each in names]


@contextlib.contextmanager
def _open_source(source: DatabaseUrl) -> Iterator[RDBStorage]:
    if source.path is None:
        yield _open(source, source)
        return
    source.require()
    # Opening a database writes to it: Optuna stores its version, SQLite its log. The copy is one consistent state, also
    # of a study that is running.
    with tempfile.TemporaryDirectory(prefix="lightning_hpo-") as folder:
        copy = Path(folder) / "copy.db"
        try:
            _copy_file(source.path, copy)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"--from: {source.path} cannot be read as an SQLite database: {error}") from error
        storage = _open(DatabaseUrl(f"sqlite:///{copy}", source.flag), source)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _copy_file(path: Path, target: Path) -> None:
    with path.open("rb") as file:
        header = file.read(20)
    # A database with write-ahead logging that no process has open: a plain read would leave a log next to it.
    at_rest = header[18:20] == b"\2\2" and not Path(f"{path}-wal").exists()
    uri = f"{path.as_uri()}?mode=ro" + ("&immutable=1" if at_rest else "")
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=SQLITE_TIMEOUT_S)) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)


def _open(opened: DatabaseUrl, source: DatabaseUrl) -> RDBStorage:
    """Open the source or its copy; errors name the source."""
    try:
        return open_storage(opened, create=False)
    except (InputError, OptunaError) as error:  # OptunaError: a database from before Optuna stored its version
        if isinstance(error, InputError) and "storage upgrade" not in str(error):
            raise InputError([line.replace(opened.url, source.masked) for line in error.problems]) from error
        raise InputError(
            f"--from: {source.masked} was written by an older Optuna; copy it, run `optuna storage upgrade --storage "
            "URL` with the copy's URL, and name the copy"
        ) from error


def _names(opened: RDBStorage, source: DatabaseUrl, name: str | None) -> list[str]:
    found = optuna.get_all_study_names(opened)
    if not found:
        raise InputError(f"--from: {source.masked} contains no studies; name another database")
    if name is not None and name not in found:
        raise InputError(f"--study {name}: no such study in {source.masked}; there are: {', '.join(found)}")
    return found if name is None else [name]


def _already_there(name: str, storage: DatabaseUrl) -> str:
    return (
        f"--study {name}: {storage.masked} has a study of that name already, and an import does not add to it; name "
        "another --storage, or import the other studies one by one with --study"
    )


def _copy_study(name: str, source: RDBStorage, target: RDBStorage, storage: DatabaseUrl) -> str:
    try:
        optuna.copy_study(from_study_name=name, from_storage=source, to_storage=target)
        study = optuna.load_study(study_name=name, storage=target)
        # The copy is another study: the folder and the runs carry the id of the original, and stay its own.
        if StudyKey.AGENT in study.user_attrs:
            study.set_user_attr(StudyKey.ID, uuid4().hex)
            study.set_user_attr(StudyKey.LEASE, None)
            study.set_user_attr(StudyKey.COMMAND, "")  # it tunes the original
        for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if TrialKey.RUN_ID in trial.user_attrs:
                set_trial_user_attr(study, trial, TrialKey.RUN_ID, None)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            set_trial_user_attr(study, trial, "ended_by", "it was running when its study was imported")
            study.tell(trial.number, state=TrialState.FAIL)
    except DuplicatedStudyError as error:  # created by another process since the check
        raise InputError(_already_there(name, storage)) from error
    except BaseException:  # a part of a study would make the next import fail
        if name in optuna.get_all_study_names(target):
            optuna.delete_study(study_name=name, storage=target)
        raise
    verbs = "was running and is" if len(running) == 1 else "were running and are"
    failed = f"; {len(running)} of them {verbs} stored as failed" if running else ""
    return f"{name}: {len(study.trials)} trials imported{failed}"
