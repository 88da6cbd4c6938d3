"""Optuna's database, waited for when it does not answer."""

import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from lightning_hpo.databases import masked
from lightning_hpo.exceptions import StorageAwayError

__all__ = ["RetryingStorage"]

_T = TypeVar("_T")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
# SQLITE_BUSY, LOCKED, IOERR, CANTOPEN, PROTOCOL. Its other errors, a full disk or a missing table, no waiting mends.
_SQLITE_PASSES = frozenset({5, 6, 10, 14, 15})
# PostgreSQL: the connection, a rollback of its own, an operator's doing, a lock, too many connections.
_POSTGRESQL_PASSES = ("08", "40", "57", "55P03", "53300")
# What Optuna's cache, its studies and its trials ask of a database.
_CALLS = (
    "create_new_study",
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    # A new trial whose answer was lost stays RUNNING beside the one that the second try makes; nobody runs it, and the
    # next `tune` or `reconcile` parks it.
    "_create_new_trial",
    # A value that was written before its answer was lost is written over, or is refused as there already, which Optuna
    # passes over: once more does no harm.
    "_set_trial_param",
    "set_trial_param",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_param",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial",
    "_get_trials",
    "_get_best_trial_id",
)


class RetryingStorage(RDBStorage):
    """Optuna's storage; a call that the database does not answer is tried again, until it does or the time is over.

    Only what may pass is waited for: a server that is down or cannot be reached, a locked file. Everything else, such
    as a value that the database refuses, is raised at once.

    Args:
        url: An SQLAlchemy URL.
        wait_s: Seconds to wait.
        kwargs: For Optuna's storage.

    Raises:
        StorageAwayError: From every call, if the database has not answered in that time.
    """

    def __init__(self, url: str, wait_s: float, **kwargs: Any) -> None:
        self.wait_s = wait_s
        self._shown_url = masked(url)
        self._wait_for(lambda: super(RetryingStorage, self).__init__(url, **kwargs))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's; a trial that has ended like this already is told so by a try whose answer was lost."""
        tries = 0

        def write() -> bool:
            nonlocal tries
            tries += 1
            try:
                return super(RetryingStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1 and self._has_ended_so(trial_id, state, values):
                    return True
                raise

        # A trial that is RUNNING already may have been taken by another process: there Optuna's own answer stands.
        return self._wait_for(write)

    def _has_ended_so(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self.get_trial(trial_id)
        return trial.state == state and (values is None or trial.values == list(values))

    def _wait_for(self, call: Callable[[], _T]) -> _T:
        """What the call gives, as soon as the database lets it."""
        began, pause, waiting = time.monotonic(), _FIRST_PAUSE_S, False
        while True:
            try:
                given = call()
            except (DBAPIError, StorageInternalError) as error:
                reason = _why_away(error)
                if reason is None:
                    raise
                left = began + self.wait_s - time.monotonic()
                if left <= 0:
                    raise StorageAwayError(
                        f"Optuna's database {self._shown_url} has not answered for {self.wait_s:g} seconds: {reason}; "
                        "when it does, the same command goes on"
                    ) from error
                if not waiting:
                    waiting = True
                    _say(f"Optuna's database {self._shown_url} does not answer: {reason}; waiting for it")
                if hasattr(self, "scoped_session"):
                    self.scoped_session.remove()  # with what is left of a broken connection
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                if waiting:
                    _say(f"Optuna's database answers again, after {time.monotonic() - began:.0f} s")
                return given


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def patient(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self._wait_for(lambda: call(self, *args, **kwargs))

    return patient


for _name in _CALLS:
    setattr(RetryingStorage, _name, _patient(getattr(RDBStorage, _name)))


def _why_away(error: BaseException) -> str | None:
    """Why the database does not answer, in a line; None if that is not what happened."""
    cause: BaseException | None = error
    while isinstance(cause, StorageInternalError):  # in which Optuna wraps every error of a database
        cause = cause.__cause__
    if not isinstance(cause, DBAPIError):
        return None
    return _line(cause.orig) if _passes(cause) else None


def _passes(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_PASSES
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state is not None and not error.connection_invalidated:
        return str(state).startswith(_POSTGRESQL_PASSES)
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def _line(error: BaseException | None) -> str:
    return next(iter(masked(str(error)).splitlines()), type(error).__name__)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
