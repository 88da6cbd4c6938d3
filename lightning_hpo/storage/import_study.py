"""The studies of another Optuna database, brought over into the storage: every trial under the number that it had."""

import contextlib
import copy
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from lightning_hpo.databases import SQLITE_TIMEOUT_S, masked, sqlite_path
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.studies import NoStudiesError, open_storage

__all__ = ["Import", "import_studies"]

_IMPORTED_AS = "imported_as"
_FIXED = "fixed_params"  # Optuna's own name for what an enqueued trial shall use
_NEAR_S = 1.0  # MySQL keeps whole seconds


@dataclass(frozen=True)
class Import:
    """What has come of one study.

    Args:
        study: Its name.
        new: Trials that were brought over.
        known: Trials that had been brought over before.
        stale: Those of them that have ended in the source since; Optuna lets nobody change them here any more.
    """

    study: str
    new: int
    known: int
    stale: int

    def __str__(self) -> str:
        """One line."""
        stale = f" ({self.stale} of them had not ended then, and stay as they came)" if self.stale else ""
        return f"{self.study}: {self.new} trials brought over, {self.known} already there{stale}"


@dataclass(frozen=True)
class _Study:
    name: str
    directions: list[StudyDirection]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]
    trials: list[FrozenTrial]


def import_studies(source: str, storage: str, name: str | None = None) -> list[Import]:
    """Bring studies over; those that were brought over before get what has been added since.

    Args:
        source: Database to read; nothing in it is changed.
        storage: Database to write.
        name: Name of the one study; None brings over all.

    Returns:
        What has come of each study.

    Raises:
        InputError: If the source cannot be read, has no such study, or a study of that name and another origin is in
            the storage. Nothing has been written then.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if _same_database(source, storage):
        raise InputError(f"--from: {masked(source)} is the storage itself; name another database, or --storage")
    with _opened(source) as opened:
        studies = _studies(opened, source, name)
    found = _known(storage)
    problems = [line for study in studies for line in _conflicts(study, found.get(study.name), storage)]
    if problems:
        raise InputError(problems)
    target = open_storage(storage, flag="--storage")
    return [_bring(study, found.get(study.name), target) for study in studies]


def _same_database(source: str, storage: str) -> bool:
    one, other = sqlite_path(source, "--from"), sqlite_path(storage, "--storage")
    if one is not None and other is not None:
        return one.resolve() == other.resolve()
    return one is other is None and make_url(source) == make_url(storage)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[RDBStorage]:
    path = sqlite_path(source, "--from")
    if path is None:
        yield _storage(source, source)
        return
    if not path.is_file():
        raise InputError(f"--from: there is no database {path}; name the file of an Optuna database")
    # Opening a database writes into it: Optuna its version, SQLite its log. So a copy is opened, made in one
    # transaction, which also holds still while somebody goes on with the study.
    with tempfile.TemporaryDirectory(prefix="lightning_hpo-") as folder:
        copied = Path(folder) / "copy.db"
        try:
            _copy(path, copied)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"--from: {path} cannot be read as an SQLite database: {error}") from error
        storage = _storage(f"sqlite:///{copied}", source)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as file:
        header = file.read(20)
    # A database with write-ahead logging that nobody has open: reading it in the usual way would leave a log beside it.
    at_rest = header[18:20] == b"\2\2" and not Path(f"{path}-wal").exists()
    uri = f"{path.as_uri()}?mode=ro" + ("&immutable=1" if at_rest else "")
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True, timeout=SQLITE_TIMEOUT_S)) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)


def _storage(url: str, source: str) -> RDBStorage:
    try:
        return open_storage(url, create=False, flag="--from")
    except InputError as error:
        if isinstance(error.__cause__, RuntimeError) and "storage upgrade" in str(error):
            raise InputError(_of_another_version(source)) from error
        raise InputError([line.replace(url, masked(source)) for line in error.problems]) from error
    except OptunaError as error:  # older than Optuna's record of versions
        raise InputError(_of_another_version(source)) from error


def _of_another_version(source: str) -> str:
    return (
        f"--from: {masked(source)} is of an older Optuna; copy it, run `optuna storage upgrade --storage URL` with the "
        "copy's URL, and name the copy"
    )


def _studies(opened: RDBStorage, source: str, name: str | None) -> list[_Study]:
    found = {study.study_name: study for study in opened.get_all_studies()}
    if not found:
        raise InputError(f"--from: {masked(source)} holds no studies; name another database")
    if name is not None and name not in found:
        raise InputError(f"--study {name}: no such study in {masked(source)}; there are: {', '.join(found)}")
    studies = []
    for each in found.values() if name is None else [found[name]]:
        trials = sorted(opened.get_all_trials(each._study_id), key=lambda trial: trial.number)
        if [trial.number for trial in trials] != list(range(len(trials))):
            raise InputError(
                f"--from: trials of {each.study_name} in {masked(source)} are missing, and Optuna numbers without "
                "gaps; name the others one by one with --study"
            )
        studies.append(_Study(each.study_name, each.directions, each.user_attrs, each.system_attrs, trials))
    return studies


def _known(storage: str) -> dict[str, _Study]:
    """The studies of the storage; it is not made if it is not there."""
    path = sqlite_path(storage, "--storage")
    if path is not None and not path.is_file():
        return {}
    try:
        opened = open_storage(storage, create=False, flag="--storage")
    except NoStudiesError:
        return {}
    try:
        return {
            each.study_name: _Study(
                each.study_name,
                each.directions,
                each.user_attrs,
                each.system_attrs,
                sorted(opened.get_all_trials(each._study_id), key=lambda trial: trial.number),
            )
            for each in opened.get_all_studies()
        }
    finally:
        opened.remove_session()
        opened.engine.dispose()


def _conflicts(study: _Study, known: _Study | None, storage: str) -> list[str]:
    if known is None:
        return []
    where = f"--study {study.name}: {masked(storage)} has a study of that name"
    way_out = "name another --storage, or bring over the other studies one by one with --study"
    if known.directions != study.directions:
        names = [", ".join(each.name.lower() for each in one.directions) for one in (known, study)]
        return [f"{where} that would {names[0]}, and this one would {names[1]}; {way_out}"]
    for ours, theirs in zip(known.trials, study.trials, strict=False):
        if not _same(theirs, ours):
            return [f"{where} and another origin: its trial {ours.number} is not the same; {way_out}"]
    return []


def _same(source: FrozenTrial, ours: FrozenTrial) -> bool:
    if source.system_attrs.get(_FIXED) != ours.system_attrs.get(_FIXED):
        return False
    came_as = ours.user_attrs.get(_IMPORTED_AS)
    if came_as == TrialState.WAITING.name:  # it may have been run on both sides since
        return True
    same_start = _near(source.datetime_start, ours.datetime_start)
    if came_as == TrialState.RUNNING.name:
        return same_start
    return (
        same_start
        and source.state == ours.state
        and source.params == ours.params
        and repr(source.values) == repr(ours.values)  # NaN is not equal to itself
        and _near(source.datetime_complete, ours.datetime_complete)
    )


def _near(one: datetime | None, other: datetime | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs((one - other).total_seconds()) <= _NEAR_S


def _bring(study: _Study, known: _Study | None, target: RDBStorage) -> Import:
    if known is None:
        study_id = target.create_new_study(study.directions, study.name)
    else:
        study_id = target.get_study_id_from_name(study.name)
    there = known.trials if known is not None else []
    for trial in study.trials[len(there) :]:
        target.create_new_trial(study_id, _as_it_comes(trial))
    _describe(study, known, study_id, target)
    stale = sum(
        theirs.state.is_finished() and _IMPORTED_AS in ours.user_attrs
        for theirs, ours in zip(study.trials, there, strict=False)
    )
    both = min(len(there), len(study.trials))
    return Import(study.name, new=len(study.trials) - both, known=both, stale=stale)


def _as_it_comes(trial: FrozenTrial) -> FrozenTrial:
    if trial.state.is_finished():
        return trial
    came = copy.deepcopy(trial)
    came.user_attrs = {**trial.user_attrs, _IMPORTED_AS: trial.state.name}
    if trial.state == TrialState.RUNNING:  # whoever runs it, runs it in the other database
        came.state = TrialState.FAIL
        came.datetime_complete = datetime.now()
        came.user_attrs["ended_by"] = "it was running when its study was brought over"
    return came


def _describe(study: _Study, known: _Study | None, study_id: int, target: RDBStorage) -> None:
    for key, value in study.user_attrs.items():
        if known is None or key not in known.user_attrs:  # what `tune` has written since is the newer
            target.set_study_user_attr(study_id, key, value)
    for key, value in study.system_attrs.items():
        if known is None or key not in known.system_attrs:
            target.set_study_system_attr(study_id, key, value)
