"""How a trial ends, and what that is called in each of the two databases.

Optuna is told last: until then its trial counts as running, so a crash between the two writes leaves a trial whose
ending is told again, never one that Optuna has closed and MLflow has not.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.tracking.outbox import Outbox

__all__ = [
    "RUNTIME",
    "RUN_ID",
    "RUN_STATUS",
    "WORKER",
    "OutcomeKind",
    "Outcome",
    "conclude",
    "keep_outcome",
    "keep_run_id",
    "kept_outcome",
    "run_id_of",
    "run_ids_of",
]

RUN_ID = "mlflow_run_id"
RUNTIME = "runtime_s"
"""Seconds that a trial has trained, over all its attempts but for those that were killed."""
WORKER = "worker"
"""What trains a trial, or did last: host, process, device, and since when."""
_DEATHS = "deaths"
_MOST_DEATHS = 3
_OUTCOME = "outcome.json"

RUN_STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "SCHEDULED",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}
"""MLflow's status of a run for each of Optuna's states of its trial."""


class OutcomeKind(Enum):
    """What happened to a trial; the value is the state that it gets."""

    state: TrialState

    def __new__(cls, label: str, state: TrialState) -> "OutcomeKind":
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
        stops_study: Whether the next trial would meet the same: a full disk.
    """

    ending: OutcomeKind
    value: float | None = None
    epoch: int | None = None
    reason: str = ""
    traceback: str = ""
    runtime_s: float = 0.0
    collapsed: bool = False
    model_uri: str | None = None
    stops_study: bool = False


def keep_outcome(folder: Path, outcome: Outcome) -> None:
    """Write down how a trial ended, for the case that nobody is there to hear it; not if it is to be gone on with."""
    if outcome.ending in (OutcomeKind.COMPLETE, OutcomeKind.PRUNED, OutcomeKind.FAILED):
        partial = folder / f"{_OUTCOME}.partial"
        partial.write_text(json.dumps(asdict(outcome) | {"ending": outcome.ending.value}), encoding="utf-8")
        partial.replace(folder / _OUTCOME)


def kept_outcome(folder: Path) -> Outcome | None:
    """How a trial ended, if it ended and Optuna was not told."""
    path = folder / _OUTCOME
    if not path.exists():
        return None
    fields: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    (ending,) = (ending for ending in OutcomeKind if ending.value == fields["ending"])
    return Outcome(**{**fields, "ending": ending})


def run_id_of(study: optuna.Study, trial: FrozenTrial) -> str | None:
    """The run of a trial; None if it has none yet."""
    return run_ids_of(study, [trial])[trial.number]


def run_ids_of(study: optuna.Study, trials: Iterable[FrozenTrial]) -> dict[int, str | None]:
    """The run of each trial by the trial's number; the study is asked once for what it keeps."""
    late = study.user_attrs
    return {trial.number: late.get(_late(trial.number)) or trial.user_attrs.get(RUN_ID) for trial in trials}


def keep_run_id(study: optuna.Study, trial: FrozenTrial, run_id: str) -> None:
    """Remember a trial's run. Optuna takes no more attributes of a finished trial: then the study keeps it."""
    if trial.state.is_finished():
        study.set_user_attr(_late(trial.number), run_id)
    else:
        study._storage.set_trial_user_attr(trial._trial_id, RUN_ID, run_id)


def _late(number: int) -> str:
    return f"{RUN_ID}_of_trial_{number}"


def conclude(study: optuna.Study, trial: optuna.Trial, outbox: Outbox, outcome: Outcome) -> TrialState:
    """Write a trial's ending into both databases.

    Returns:
        The state that the trial got.
    """
    state = _state(trial, outcome)
    if outbox.begun:
        _record(outbox, state, outcome)
    _keep_attributes(trial, outcome, outbox.run_id)
    if state == TrialState.WAITING:
        _park(study, trial._trial_id)
        return state
    study.tell(trial, outcome.value if state == TrialState.COMPLETE else None, state)
    (outbox.folder / _OUTCOME).unlink(missing_ok=True)
    outbox.close()
    return state


def _state(trial: optuna.Trial, outcome: Outcome) -> TrialState:
    if outcome.ending is OutcomeKind.DIED:
        deaths = trial.user_attrs.get(_DEATHS, 0) + 1
        trial.set_user_attr(_DEATHS, deaths)
        if deaths >= _MOST_DEATHS:
            return TrialState.FAIL
    return outcome.ending.state


def _keep_attributes(trial: optuna.Trial, outcome: Outcome, run_id: str | None) -> None:
    attributes = {
        RUN_ID: None if RUN_ID in trial.user_attrs else run_id,
        "pruned_at_epoch": outcome.epoch if outcome.ending is OutcomeKind.PRUNED else None,
        "best_epoch": outcome.epoch if outcome.ending is OutcomeKind.COMPLETE else None,
        "collapsed": True if outcome.collapsed else None,
        "mlflow_model_uri": outcome.model_uri,
        "ended_by": outcome.reason or None,
        RUNTIME: trial.user_attrs.get(RUNTIME, 0.0) + outcome.runtime_s if outcome.runtime_s else None,
    }
    for key, value in attributes.items():
        if value is not None:
            trial.set_user_attr(key, value)


def _record(outbox: Outbox, state: TrialState, outcome: Outcome) -> None:
    if state.is_finished() and not outbox.steps("runtime_s"):
        metrics = {"runtime_s": outcome.runtime_s}
        if outcome.ending is OutcomeKind.COMPLETE and outcome.value is not None and outcome.epoch is not None:
            metrics |= {"final_metric": outcome.value, "best_epoch": outcome.epoch}
        outbox.write("log_metrics", metrics=metrics, step=0)
    if outcome.traceback:
        outbox.write("log_text", text=outcome.traceback, name="traceback.txt")
    tags = {"optuna_state": state.name, "ended_by": outcome.reason}
    if outcome.ending is OutcomeKind.PRUNED:
        tags["pruned_at_epoch"] = str(outcome.epoch)
    if outcome.collapsed:
        tags["collapsed"] = "true"
    tags = {key: value for key, value in tags.items() if value}
    outbox.write("set_status", status=RUN_STATUS[state], tags=tags)


def _park(study: optuna.Study, trial_id: int) -> None:
    study._storage.set_trial_state_values(trial_id, TrialState.WAITING)
