import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, get_storage
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError

from lightning_hpo.exceptions import StorageAwayError
from lightning_hpo.storage import retrying_storage
from lightning_hpo.storage.retrying_storage import RetryingStorage
from lightning_hpo.storage.studies import open_storage
from tests.postgres import Postgres


class SpyLog:
    """Hears what is said, and does something at the first word."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.do: Callable[[], object] = lambda: None

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if len(self.lines) == 1:
            self.do()


@pytest.fixture
def spy_log(monkeypatch: pytest.MonkeyPatch) -> SpyLog:
    spy_log = SpyLog()
    monkeypatch.setattr(retrying_storage, "_say", spy_log)
    return spy_log


@pytest.fixture
def storage(storage_url: str) -> RetryingStorage:
    return RetryingStorage(storage_url, 60.0, engine_kwargs={"connect_args": {"timeout": 0.01}})


@pytest.fixture
def retrying_study(storage: RetryingStorage) -> optuna.Study:
    return optuna.create_study(study_name="first", storage=storage, direction="maximize")


@pytest.fixture
def lock(storage_url: str) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(storage_url.removeprefix("sqlite:///"), isolation_level=None)
    yield connection
    connection.close()


def test_a_locked_database_is_waited_for(
    retrying_study: optuna.Study, storage_url: str, lock: sqlite3.Connection, spy_log: SpyLog
) -> None:
    trial = retrying_study.ask()
    spy_log.do = lambda: lock.execute("ROLLBACK")
    for step in range(2):
        spy_log.lines.clear()
        lock.execute("BEGIN EXCLUSIVE")
        trial.report(0.5 + step, step)
        assert len(spy_log.lines) == 2
        assert spy_log.lines[0] == (
            f"Optuna's database {storage_url} does not answer: database is locked; waiting for it"
        )
        assert spy_log.lines[1].startswith("Optuna's database answers again, after ")
    spy_log.lines.clear()
    lock.execute("BEGIN EXCLUSIVE")
    retrying_study.tell(trial, 0.75)
    [told] = optuna.load_study(study_name="first", storage=storage_url).trials
    assert (told.state, told.value, told.intermediate_values) == (TrialState.COMPLETE, 0.75, {0: 0.5, 1: 1.5})


def test_a_new_trial_is_waited_for_and_made_once(
    retrying_study: optuna.Study, lock: sqlite3.Connection, spy_log: SpyLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)  # Optuna's own pauses
    lock.execute("BEGIN EXCLUSIVE")
    spy_log.do = lambda: lock.execute("ROLLBACK")
    trial = retrying_study.ask()
    assert len(spy_log.lines) == 2
    assert [t.number for t in retrying_study.trials] == [trial.number] == [0]


def test_when_the_time_is_over_one_line_says_so(
    storage_url: str, retrying_study: optuna.Study, lock: sqlite3.Connection, spy_log: SpyLog
) -> None:
    storage = RetryingStorage(storage_url, 0.05, engine_kwargs={"connect_args": {"timeout": 0.01}})
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageAwayError) as caught:
        storage.set_study_user_attr(retrying_study._study_id, "agent", "criteria")
    assert str(caught.value) == (
        f"Optuna's database {storage_url} has not answered for 0.05 seconds: database is locked; "
        "when it does, the same command goes on"
    )
    assert len(spy_log.lines) == 1
    lock.execute("ROLLBACK")
    storage.set_study_user_attr(retrying_study._study_id, "agent", "criteria")
    assert retrying_study.user_attrs == {"agent": "criteria"}


def test_opening_waits_too(storage_url: str, spy_log: SpyLog, tmp_path: Path) -> None:
    path = Path(storage_url.removeprefix("sqlite:///"))
    away = path.rename(tmp_path / "away.db")
    path.mkdir()

    def bring_back() -> None:
        path.rmdir()
        away.rename(path)

    spy_log.do = bring_back
    storage = RetryingStorage(storage_url, 60.0, skip_table_creation=True)
    assert spy_log.lines[0].endswith("unable to open database file; waiting for it")
    assert storage.get_all_studies() == []


def test_a_password_is_not_said(spy_log: SpyLog) -> None:
    with pytest.raises(StorageAwayError) as caught:
        RetryingStorage("postgresql+psycopg://me:secret@localhost:1/db", 0.0)
    assert "postgresql+psycopg://me:***@localhost:1/db" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def _sqlite_error(kind: type[sqlite3.Error], code: int) -> sqlite3.Error:
    error = kind("planted")
    error.sqlite_errorcode = code
    return error


def _lose_one_answer(storage: RetryingStorage) -> None:
    """The next commit is made, and nobody hears of it."""
    dialect = storage.engine.dialect
    commit = dialect.do_commit

    def lose(connection: Any) -> None:
        commit(connection)
        dialect.do_commit = commit  # type: ignore[method-assign]
        raise _sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_IOERR)

    dialect.do_commit = lose  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(
    ("state", "value"), [(TrialState.COMPLETE, 0.5), (TrialState.PRUNED, None), (TrialState.FAIL, None)]
)
def test_an_ending_whose_answer_was_lost_is_done(
    retrying_study: optuna.Study, storage: RetryingStorage, spy_log: SpyLog, state: TrialState, value: float | None
) -> None:
    trial = retrying_study.ask()
    values = None if value is None else [value]
    _lose_one_answer(storage)
    assert storage.set_trial_state_values(trial._trial_id, state, values) is True
    assert len(spy_log.lines) == 2
    assert [(t.state, t.value) for t in retrying_study.trials] == [(state, value)]


def test_an_ending_that_another_has_written_is_not_taken_for_ours(
    retrying_study: optuna.Study, storage: RetryingStorage, storage_url: str, lock: sqlite3.Connection, spy_log: SpyLog
) -> None:
    trial = retrying_study.ask()
    retrying_study.tell(trial, 0.5)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    second = retrying_study.ask()
    lock.execute("BEGIN EXCLUSIVE")

    def tell_first() -> None:
        lock.execute("ROLLBACK")
        RDBStorage(storage_url).set_trial_state_values(second._trial_id, TrialState.FAIL)

    spy_log.do = tell_first
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(second._trial_id, TrialState.COMPLETE, [0.5])


def test_params_and_attributes_whose_answer_was_lost_are_kept_once(
    retrying_study: optuna.Study, storage: RetryingStorage, spy_log: SpyLog
) -> None:
    trial = retrying_study.ask()
    for write in (
        lambda: trial.suggest_float("lr", 0.0, 1.0),
        lambda: trial.set_user_attr("mlflow_run_id", "abc"),
        lambda: trial.report(0.5, 0),
    ):
        _lose_one_answer(storage)
        write()
    [kept] = retrying_study.trials
    assert (len(kept.params), kept.user_attrs, kept.intermediate_values) == (1, {"mlflow_run_id": "abc"}, {0: 0.5})


def test_a_parked_trial_whose_answer_was_lost_is_parked(
    retrying_study: optuna.Study, storage: RetryingStorage, spy_log: SpyLog
) -> None:
    trial = retrying_study.ask()
    _lose_one_answer(storage)
    storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    assert retrying_study.ask().number == trial.number


@pytest.mark.parametrize(
    ("planted", "raised"),
    [
        (_sqlite_error(sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT), IntegrityError),
        (_sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_FULL), StorageInternalError),
        (_sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_READONLY), StorageInternalError),
        (TypeError("planted"), TypeError),
    ],
)
def test_what_no_waiting_mends_is_raised_at_once(
    retrying_study: optuna.Study, storage: RetryingStorage, spy_log: SpyLog, planted: Exception, raised: type[Exception]
) -> None:
    def fail(connection: object) -> None:
        del connection
        raise planted

    storage.engine.dialect.do_commit = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(raised):
        storage.get_study_user_attrs(retrying_study._study_id)
    assert spy_log.lines == []


def test_a_missing_table_is_raised_at_once(
    retrying_study: optuna.Study, lock: sqlite3.Connection, spy_log: SpyLog
) -> None:
    lock.execute("DROP TABLE study_user_attributes")
    with pytest.raises(StorageInternalError):
        retrying_study.set_user_attr("agent", "criteria")
    assert spy_log.lines == []


def test_every_call_of_optuna_s_cache_is_patient(storage: RetryingStorage) -> None:
    asked = set(Path(optuna.storages._cached_storage.__file__).read_text(encoding="utf-8").split("self._backend.")[1:])
    names = {text.split("(")[0] for text in asked} - {
        *("record_heartbeat", "_get_stale_trial_ids", "get_heartbeat_interval", "get_heartbeat_stale_trial_callback")
    }
    assert {name for name in names if getattr(RetryingStorage, name) is getattr(RDBStorage, name)} == set()
    assert type(get_storage(storage)).__name__ == "_CachedStorage"


def test_it_goes_through_a_pipe(retrying_study: optuna.Study, storage: RetryingStorage) -> None:
    again = pickle.loads(pickle.dumps(storage))
    assert (type(again), again.wait_s) == (RetryingStorage, 60.0)
    assert again.get_study_id_from_name("first") == retrying_study._study_id


def test_only_who_waits_gets_it(storage_url: str) -> None:
    assert isinstance(open_storage(storage_url, wait_s=1.0), RetryingStorage)
    assert type(open_storage(storage_url)) is RDBStorage


def test_a_server_that_is_started_anew_is_gone_on_with(tmp_path: Path, spy_log: SpyLog) -> None:
    server = Postgres(tmp_path / "postgres")
    try:
        url = server.database("optuna")
        study = optuna.create_study(study_name="first", storage=open_storage(url, wait_s=120.0), direction="maximize")
        trial = study.ask()
        spy_log.do = server.start
        for step in range(2):
            spy_log.lines.clear()
            server.stop()
            trial.report(0.5, step)
            assert len(spy_log.lines) == 2, spy_log.lines
        spy_log.lines.clear()
        server.stop()
        server.start()  # before anybody asks: the old connection is broken, and nobody need hear of it
        study.tell(trial, 0.5)
        assert spy_log.lines == []
        [told] = study.trials
        assert (told.state, told.intermediate_values) == (TrialState.COMPLETE, {0: 0.5, 1: 0.5})
    finally:
        server.cleanup()
