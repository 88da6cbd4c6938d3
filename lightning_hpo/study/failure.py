"""End of a study by an error: stop its processes, pause its trials, and show one line."""

import sqlite3
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from optuna.exceptions import StorageInternalError

from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LeaseLostError, LightningHpoError, StorageAwayError
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.study.workers import Workers
from lightning_hpo.tracking.tracker import AWAY
from lightning_hpo.trial.messages import Request
from lightning_hpo.trial.outcome import Outcome

if TYPE_CHECKING:
    from lightning_hpo.study.session import Session

__all__ = ["exit_with_one_line_error", "kill_processes", "pause_on_error", "stop_processes"]

_STOP_S = 10.0
_LAST_TRY_S = 1.0
_OUTSIDE = (*AWAY, sqlite3.Error, StorageInternalError, StorageAwayError)
"""Exceptions of a database, MLflow or the disk."""


@contextmanager
def exit_with_one_line_error(workers: Workers) -> Iterator[None]:
    """On a database, MLflow or disk error: stop the running processes and raise a one-line error."""
    try:
        yield
    except _OUTSIDE as error:
        stop_processes(workers)
        if isinstance(error, LightningHpoError):
            raise
        raise LightningHpoError(
            f"{_one_line(error)}; the running trials were stopped, and the same command resumes them"
        ) from error


@contextmanager
def pause_on_error(session: "Session") -> Iterator[None]:
    """On any error: stop the running processes, pause their trials, log the error, and raise it in one line."""
    try:
        yield
    except LeaseLostError as error:  # their checkpoints are written by the other machine now
        kill_processes(session.workers)
        session.outboxes.stop()
        session.log(f"error: {error}")
        raise
    except Exception as error:
        stop_processes(session.workers)
        _pause_trials(session)
        session.outboxes.stop(_STOP_S)
        if isinstance(error, InputError):
            raise
        if isinstance(error, LightningHpoError):
            session.log(f"error: {error}")
            raise
        line = f"{_one_line(error)}; the running trials were stopped, and the same command resumes them"
        frames = "".join(traceback.format_tb(error.__traceback__))
        session.log(f"error: {line}\n{frames}")
        if isinstance(error, _OUTSIDE):
            raise LightningHpoError(line) from error
        raise LightningHpoError(f"{line}; the traceback is in {session.folder.log}") from error


def stop_processes(workers: Workers) -> None:
    """Ask all processes to stop, and kill those that have not sent their outcome within ten seconds.

    Outcomes are not recorded here: the final ones are on disk, and the others are interruptions.
    """
    workers.stop()
    end = time.monotonic() + _STOP_S
    while workers.running and (left := end - time.monotonic()) > 0:
        for key, message in workers.wait(left):
            if isinstance(message, Outcome | Request):  # a process whose request gets no answer exits
                workers.release(key)
    kill_processes(workers)


def kill_processes(workers: Workers) -> None:
    """Kill all processes, and wait for their exit."""
    workers.kill()
    for key in workers.running:
        workers.release(key)
    workers.reap()


def _pause_trials(session: "Session") -> None:
    """Pause the trials that are still running in Optuna's database, with a connection of its own that does not wait."""
    database = StudyDatabase(session.spec.settings.storage_url, _LAST_TRY_S)
    # If the database does not answer, the next command pauses them.
    with suppress(InputError, *_OUTSIDE):
        study = database.load(session.study.study_name)
        Reconciliation(study, session.tracker, alive=False, outboxes=session.outboxes).end_running()


def _one_line(error: BaseException) -> str:
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    reason = next(iter(masked(str(getattr(error, "orig", None) or error)).splitlines()), "")
    return f"{type(error).__name__}: {reason}"
