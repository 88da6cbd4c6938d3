"""How a trial ends, and what that is called in each of the two databases.

Optuna is told last: until then its trial counts as running, so a crash between the two writes leaves a trial that is
taken up again, never one that Optuna has closed and MLflow has not.
"""

from dataclasses import dataclass
from enum import Enum

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.tracking import Tracker

__all__ = ["RUN_ID", "RUN_STATUS", "Ending", "Outcome", "conclude", "heal"]

RUN_ID = "mlflow_run_id"
_DEATHS = "deaths"
_MOST_DEATHS = 3

RUN_STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "SCHEDULED",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}
"""MLflow's status of a run for each of Optuna's states of its trial."""


class Ending(Enum):
    """What happened to a trial; the value is the state that it gets."""

    state: TrialState

    def __new__(cls, label: str, state: TrialState) -> "Ending":
        """An ending by its label, with its state."""
        ending = object.__new__(cls)
        ending._value_ = label
        ending.state = state
        return ending

    COMPLETE = ("complete", TrialState.COMPLETE)
    PRUNED = ("pruned", TrialState.PRUNED)
    INTERRUPTED = ("interrupted", TrialState.WAITING)
    DIED = ("died", TrialState.WAITING)
    OUT_OF_MEMORY = ("out of memory", TrialState.FAIL)
    FAILED = ("failed", TrialState.FAIL)


@dataclass(frozen=True)
class Outcome:
    """An ending with its figures.

    Args:
        ending: What happened.
        value: The best monitored value, of a complete trial.
        epoch: The epoch of that value, or the epoch at which the trial was pruned.
        reason: One line that says why it ended early; empty if it did not.
        traceback: Where an exception came from; empty if there was none.
        runtime_s: Seconds that the trial has trained.
        collapsed: Whether its predictions are one constant answer.
        model_uri: MLflow's URI of the logged model, if it was logged.
    """

    ending: Ending
    value: float | None = None
    epoch: int | None = None
    reason: str = ""
    traceback: str = ""
    runtime_s: float = 0.0
    collapsed: bool = False
    model_uri: str | None = None


def conclude(study: optuna.Study, trial: optuna.Trial, tracker: Tracker, outcome: Outcome) -> TrialState:
    """Write a trial's ending into both databases.

    Returns:
        The state that the trial got.
    """
    state = _state(trial, outcome)
    run_id = trial.user_attrs.get(RUN_ID)
    _keep_attributes(trial, outcome)
    if run_id is not None:
        _record(tracker, run_id, state, outcome)
    if state == TrialState.WAITING:
        _park(study, trial._trial_id)
    elif state == TrialState.COMPLETE:
        study.tell(trial, outcome.value)
    else:
        study.tell(trial, state=state)
    return state


def _state(trial: optuna.Trial, outcome: Outcome) -> TrialState:
    if outcome.ending is Ending.DIED:
        deaths = trial.user_attrs.get(_DEATHS, 0) + 1
        trial.set_user_attr(_DEATHS, deaths)
        if deaths >= _MOST_DEATHS:
            return TrialState.FAIL
    return outcome.ending.state


def _keep_attributes(trial: optuna.Trial, outcome: Outcome) -> None:
    attributes = {
        "pruned_at_epoch": outcome.epoch if outcome.ending is Ending.PRUNED else None,
        "best_epoch": outcome.epoch if outcome.ending is Ending.COMPLETE else None,
        "collapsed": True if outcome.collapsed else None,
        "mlflow_model_uri": outcome.model_uri,
        "ended_by": outcome.reason or None,
    }
    for key, value in attributes.items():
        if value is not None:
            trial.set_user_attr(key, value)


def _record(tracker: Tracker, run_id: str, state: TrialState, outcome: Outcome) -> None:
    if state.is_finished():
        metrics = {"runtime_s": outcome.runtime_s}
        if outcome.ending is Ending.COMPLETE and outcome.value is not None and outcome.epoch is not None:
            metrics |= {"final_metric": outcome.value, "best_epoch": outcome.epoch}
        tracker.log_metrics(run_id, metrics, step=0)
    if outcome.traceback:
        tracker.log_text(run_id, outcome.traceback, "traceback.txt")
    tags = {"optuna_state": state.name, "ended_by": outcome.reason}
    if outcome.ending is Ending.PRUNED:
        tags["pruned_at_epoch"] = str(outcome.epoch)
    if outcome.collapsed:
        tags["collapsed"] = "true"
    tracker.set_status(run_id, RUN_STATUS[state], {key: value for key, value in tags.items() if value})


def _park(study: optuna.Study, trial_id: int) -> None:
    study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def heal(study: optuna.Study, tracker: Tracker) -> list[int]:
    """Park the trials that a study left running when it died. Only for a study that no living process tunes.

    Returns:
        The numbers of the trials that were found running.
    """
    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in left:
        trial = optuna.Trial(study, frozen._trial_id)
        conclude(study, trial, tracker, Outcome(Ending.DIED, reason="the study's process died"))
    _match_statuses(study, tracker)
    return [frozen.number for frozen in left]


def _match_statuses(study: optuna.Study, tracker: Tracker) -> None:
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    for frozen in waiting:
        run_id = _run_id(frozen)
        if run_id is not None and tracker.client.get_run(run_id).info.status != RUN_STATUS[frozen.state]:
            tracker.set_status(run_id, RUN_STATUS[frozen.state], {"optuna_state": frozen.state.name})


def _run_id(trial: FrozenTrial) -> str | None:
    run_id: str | None = trial.user_attrs.get(RUN_ID)
    return run_id
