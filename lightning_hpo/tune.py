"""The study loop: ask for a trial, train it in a process, tell Optuna its outcome."""

import shlex
from collections.abc import Sequence
from typing import Any

import optuna

from lightning_hpo.exceptions import InputError
from lightning_hpo.registry.register import register
from lightning_hpo.study.callback import StudyCallback
from lightning_hpo.study.cost import CostEstimate
from lightning_hpo.study.hangs import HangDetector
from lightning_hpo.study.launcher import answer_request, halve_after_out_of_memory, launch, outcome_of_exit
from lightning_hpo.study.progress import ProgressDisplay
from lightning_hpo.study.recorder import record_outcome
from lightning_hpo.study.retention import CheckpointRetention
from lightning_hpo.study.session import Session, open_session
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.tracking.errors import AWAY, cause_of
from lightning_hpo.trial.messages import Request
from lightning_hpo.trial.outcome import Outcome, OutcomeKind

__all__ = ["default_callbacks", "run", "tune"]


def tune(spec: StudySpec, workers: Workers) -> int:
    """Run a study, or resume it, and register its best model when it is complete.

    Returns:
        The command's exit code: 0, or 128 and the signal's number if a signal stopped it.

    Raises:
        InputError: If the study cannot start; nothing has been written then.
        LightningHpoError: If too many trials in a row have failed, or the best model cannot be registered.
    """
    with open_session(spec, workers) as session:
        run(session, default_callbacks(session))
        if session.send_all() and session.complete and spec.settings.register:
            _register_best(session)
        return session.finish()


def default_callbacks(session: Session) -> list[StudyCallback]:
    """Return the callbacks of every study."""
    retention = CheckpointRetention(session.study, session.tracker, session.spec.settings.keep, session.outboxes.submit)
    return [ProgressDisplay(session), retention, CostEstimate(session), HangDetector(session)]


def run(session: Session, callbacks: Sequence[StudyCallback]) -> None:
    """Keep every worker busy until the study is complete or has to stop."""
    try:
        for callback in callbacks:
            callback.on_study_start()
        with session.stopping.on_signals():
            while True:
                while session.workers.free and session.wants_more_trials:
                    _start(session, session.ask(), callbacks)
                for callback in callbacks:
                    callback.on_wait()
                if not session.workers.running:
                    break
                for trial, message in session.wait():
                    _handle(session, trial, message, callbacks)
                session.outboxes.settle()
            session.workers.reap()
        if session.complete:
            for callback in callbacks:
                callback.on_study_complete()
    finally:
        for callback in callbacks:
            callback.on_study_end()


def _start(session: Session, trial: optuna.Trial, callbacks: Sequence[StudyCallback]) -> None:
    for callback in callbacks:
        callback.on_trial_start(trial, resumed=session.outboxes.of(trial).begun)
    try:
        launch(session, trial)
    except InputError as error:
        _end(session, trial, Outcome(OutcomeKind.FAILED, reason=error.problems[0]), callbacks)


def _handle(session: Session, trial: optuna.Trial, message: Any, callbacks: Sequence[StudyCallback]) -> None:
    match message:
        case Request():
            answer_request(session, trial, message)
        case Outcome():
            session.workers.release(trial)
            _end(session, trial, message, callbacks)
        case ProcessExit():
            _end(session, trial, outcome_of_exit(session, trial, message), callbacks)
        case _:
            for callback in callbacks:
                callback.on_message(trial, message)


def _end(session: Session, trial: optuna.Trial, outcome: Outcome, callbacks: Sequence[StudyCallback]) -> None:
    if notice := halve_after_out_of_memory(session, trial, outcome):
        _handle(session, trial, notice, callbacks)
        _start(session, trial, callbacks)
        return
    if outcome.stops_study:
        session.stopping.stop_for(outcome.reason)
    state = record_outcome(session.study, trial, session.outboxes.of(trial), outcome)
    session.count(trial, state, outcome)
    for callback in callbacks:
        callback.on_trial_end(trial, state, outcome)


def _register_best(session: Session) -> None:
    session.say("registering the best model, and verifying it in a new process")
    try:
        session.say(register(session.study, session.tracker, session.workers))
    except AWAY as error:
        again = f"lightning-hpo register --study {shlex.quote(session.study.study_name)}"
        session.say(f"not registered, since MLflow {cause_of(error)}: run `{again}` later")
