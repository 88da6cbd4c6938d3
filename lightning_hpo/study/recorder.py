"""Record the outcome of a trial in both databases.

Optuna's record is written last. Until then the trial counts as running, so a crash between the two writes leaves a
trial whose outcome is recorded again, never one that Optuna has closed and MLflow has not.
"""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.optuna_private import pause_trial, stored_trial
from lightning_hpo.tracking.entries import LogMetrics, LogText, SetStatus
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.trial.outcome import RUN_STATUS, Outcome, OutcomeKind

__all__ = ["record_outcome"]

_MAX_CRASHES = 3


def record_outcome(study: optuna.Study, trial: optuna.Trial, outbox: Outbox, outcome: Outcome) -> TrialState:
    """Write a trial's outcome to MLflow's outbox, then to Optuna.

    Returns:
        The trial's new state.
    """
    stored = stored_trial(study, trial)  # the attributes of `trial` itself are those at its start
    state = _state(trial, stored, outcome)
    if outbox.begun:
        _write(outbox, state, outcome)
    _set_attributes(trial, stored.user_attrs, outcome, outbox.run_id)
    outbox.folder.sign_of_life.unlink(missing_ok=True)
    if state == TrialState.WAITING:
        pause_trial(study, trial)
        return state
    study.tell(trial, outcome.value if state == TrialState.COMPLETE else None, state)
    outbox.folder.outcome.unlink(missing_ok=True)
    outbox.close()
    return state


def _state(trial: optuna.Trial, stored: FrozenTrial, outcome: Outcome) -> TrialState:
    """Return the state that follows, after counting a crash. A crash after a gained epoch is counted as the first."""
    if outcome.kind is not OutcomeKind.CRASHED:
        return outcome.kind.state
    epochs = len(stored.intermediate_values)
    # Without the second attribute, the count is that of version 0.1.0, which counted interruptions as well.
    gained = epochs > stored.user_attrs.get(TrialKey.EPOCHS_AT_CRASH, -1)
    crashes = 1 if gained else stored.user_attrs.get(TrialKey.CRASHES, 0) + 1
    trial.set_user_attr(TrialKey.CRASHES, crashes)
    trial.set_user_attr(TrialKey.EPOCHS_AT_CRASH, epochs)
    return TrialState.FAIL if crashes >= _MAX_CRASHES else outcome.kind.state


def _set_attributes(trial: optuna.Trial, stored: Mapping[str, Any], outcome: Outcome, run_id: str | None) -> None:
    attributes = {
        TrialKey.RUN_ID: None if TrialKey.RUN_ID in stored else run_id,
        TrialKey.PRUNED_AT_EPOCH: outcome.epoch if outcome.kind is OutcomeKind.PRUNED else None,
        TrialKey.BEST_EPOCH: outcome.epoch if outcome.kind is OutcomeKind.COMPLETE else None,
        TrialKey.COLLAPSED: True if outcome.collapsed else None,
        TrialKey.MODEL_URI: outcome.model_uri,
        TrialKey.MODEL_SEAL: outcome.model_seal,
        TrialKey.REASON: outcome.reason or None,
    }
    if outcome.runtime_s:
        attributes |= _runtime(stored, outcome.runtime_s)
    for key, value in attributes.items():
        if value is not None:
            trial.set_user_attr(key, value)


def _runtime(stored: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return the attributes that add the seconds of an attempt, also if they were stored before a crash of the study.

    The first attribute names the attempt and the seconds before it, so the same attempt is added only once.
    """
    attempt = {"since": stored.get(TrialKey.WORKER, {}).get("since"), "seconds": seconds}
    counted = dict(stored.get(TrialKey.LAST_ATTEMPT, {}))
    before = counted.pop("before", 0.0)
    if counted != attempt:
        before = stored.get(TrialKey.RUNTIME, 0.0)
    return {TrialKey.LAST_ATTEMPT: {**attempt, "before": before}, TrialKey.RUNTIME: before + seconds}


def _write(outbox: Outbox, state: TrialState, outcome: Outcome) -> None:
    if state.is_finished() and not outbox.steps("runtime_s"):
        metrics = {"runtime_s": outcome.runtime_s}
        if outcome.kind is OutcomeKind.COMPLETE and outcome.value is not None and outcome.epoch is not None:
            metrics |= {"final_metric": outcome.value, "best_epoch": outcome.epoch}
        outbox.write(LogMetrics(metrics, step=0))
    if outcome.traceback:
        outbox.write(LogText(outcome.traceback, "traceback.txt"))
    tags = {"optuna_state": state.name, "ended_by": outcome.reason}
    if outcome.kind is OutcomeKind.PRUNED:
        tags["pruned_at_epoch"] = str(outcome.epoch)
    if outcome.collapsed:
        tags["collapsed"] = "true"
    outbox.write(SetStatus(RUN_STATUS[state], {key: value for key, value in tags.items() if value}))
