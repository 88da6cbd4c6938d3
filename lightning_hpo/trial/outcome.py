"""Outcome of a trial: what happened, what each of the two databases calls it, and the file that survives a crash."""

import json
import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from optuna.trial import TrialState

from lightning_hpo.study_folder import TrialFolder, read_file, write_whole
from lightning_hpo.tracking.entries import has_valid_fields

__all__ = ["RUN_STATUS", "Outcome", "OutcomeKind", "load_outcome", "save_outcome"]

RUN_STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.WAITING: "SCHEDULED",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}
"""MLflow's status of a run for each of Optuna's states of its trial."""


class OutcomeKind(Enum):
    """What happened to a trial, with the Optuna state that follows."""

    state: TrialState

    def __new__(cls, label: str, state: TrialState) -> "OutcomeKind":
        """Create a kind from its label and its state."""
        kind = object.__new__(cls)
        kind._value_ = label
        kind.state = state
        return kind

    COMPLETE = ("complete", TrialState.COMPLETE)
    PRUNED = ("pruned", TrialState.PRUNED)
    INTERRUPTED = ("interrupted", TrialState.WAITING)
    CRASHED = ("died", TrialState.WAITING)
    OUT_OF_MEMORY = ("out of memory", TrialState.FAIL)
    FAILED = ("failed", TrialState.FAIL)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial, with its figures.

    Args:
        kind: What happened.
        value: Best monitored value of a complete trial.
        epoch: Epoch of that value, or the epoch at which the trial was pruned; counted from 0.
        reason: Why the trial ended early, in one line; empty if it did not.
        traceback: Stack frames of an exception, without its message; empty if there was none.
        runtime_s: Seconds of training in this attempt.
        collapsed: Whether the model predicts the same for every input.
        model_uri: MLflow's URI of the logged model, if one was logged.
        model_seal: Its seal (see `serving.checksums`).
        stops_study: Whether the next trial would fail in the same way, as on a full disk.
        in_validation: Whether the trial ran out of memory in a validation.
    """

    kind: OutcomeKind
    value: float | None = None
    epoch: int | None = None
    reason: str = ""
    traceback: str = ""
    runtime_s: float = 0.0
    collapsed: bool = False
    model_uri: str | None = None
    model_seal: str | None = None
    stops_study: bool = False
    in_validation: bool = False


def save_outcome(folder: TrialFolder, outcome: Outcome) -> None:
    """Save a final outcome to disk in case the study process exits before reading it.

    Outcomes that will be resumed are not saved.
    """
    if outcome.kind in (OutcomeKind.COMPLETE, OutcomeKind.PRUNED, OutcomeKind.FAILED):
        fields = asdict(outcome)
        del fields["kind"]
        write_whole(folder.outcome, json.dumps({"ending": outcome.kind.value, **fields}))


def load_outcome(folder: TrialFolder) -> Outcome | None:
    """Return the outcome on disk, or None if the trial has not ended or Optuna has its outcome already.

    A file that is damaged, or holds values of other types, counts as none.
    """
    try:
        fields: dict[str, Any] = json.loads(read_file(folder.outcome))
        kinds = {kind.value: kind for kind in OutcomeKind}
        outcome = Outcome(kinds[fields.pop("ending")], **fields)
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None
    numbers = (outcome.value, outcome.epoch, outcome.runtime_s)
    is_valid = has_valid_fields(outcome) and all(math.isfinite(number or 0) for number in numbers)
    return outcome if is_valid else None
