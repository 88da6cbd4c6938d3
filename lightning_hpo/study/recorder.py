"""Record the outcome of a trial in both databases.

Optuna's record is written last. Until then the trial counts as running, so a crash between the two writes leaves a
trial whose outcome is recorded again, never one that Optuna has closed and MLflow has not.
"""

import optuna
from optuna.trial import TrialState

from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.optuna_private import pause_trial
from lightning_hpo.tracking.outbox import LogMetrics, LogText, Outbox, SetStatus
from lightning_hpo.trial.outcome import RUN_STATUS, Outcome, OutcomeKind

__all__ = ["record_outcome"]

_MAX_CRASHES = 3


def record_outcome(study: optuna.Study, trial: optuna.Trial, outbox: Outbox, outcome: Outcome) -> TrialState:
    """Write a trial's outcome to MLflow's outbox, then to Optuna.

    Returns:
        The trial's new state.
    """
    state = _state(trial, outcome)
    if outbox.begun:
        _write(outbox, state, outcome)
    _set_attributes(trial, outcome, outbox.run_id)
    if state == TrialState.WAITING:
        pause_trial(study, trial)
        return state
    study.tell(trial, outcome.value if state == TrialState.COMPLETE else None, state)
    outbox.folder.outcome.unlink(missing_ok=True)
    outbox.close()
    return state


def _state(trial: optuna.Trial, outcome: Outcome) -> TrialState:
    if outcome.kind is OutcomeKind.CRASHED:
        crashes = trial.user_attrs.get(TrialKey.CRASHES, 0) + 1
        trial.set_user_attr(TrialKey.CRASHES, crashes)
        if crashes >= _MAX_CRASHES:
            return TrialState.FAIL
    return outcome.kind.state


def _set_attributes(trial: optuna.Trial, outcome: Outcome, run_id: str | None) -> None:
    attributes = {
        TrialKey.RUN_ID: None if TrialKey.RUN_ID in trial.user_attrs else run_id,
        TrialKey.PRUNED_AT_EPOCH: outcome.epoch if outcome.kind is OutcomeKind.PRUNED else None,
        TrialKey.BEST_EPOCH: outcome.epoch if outcome.kind is OutcomeKind.COMPLETE else None,
        TrialKey.COLLAPSED: True if outcome.collapsed else None,
        TrialKey.MODEL_URI: outcome.model_uri,
        TrialKey.REASON: outcome.reason or None,
    }
    if outcome.runtime_s:
        attributes[TrialKey.RUNTIME] = trial.user_attrs.get(TrialKey.RUNTIME, 0.0) + outcome.runtime_s
    for key, value in attributes.items():
        if value is not None:
            trial.set_user_attr(key, value)


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
