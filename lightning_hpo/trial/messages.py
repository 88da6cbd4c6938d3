"""Messages of a trial process to its study process.

A request is answered; every other message is not. `Outcome` is the last message of a trial.
"""

from dataclasses import dataclass
from typing import Any

from lightning_hpo.hardware.memory import GpuUse
from lightning_hpo.tracking.entries import Entry
from lightning_hpo.trial.outcome import Outcome

__all__ = [
    "Alive",
    "IsBest",
    "Message",
    "Notice",
    "Progress",
    "Report",
    "Request",
    "RunId",
    "SetAttribute",
    "ShouldPrune",
    "WriteEntry",
    "WrittenSteps",
]


@dataclass(frozen=True)
class Request:
    """Base class of the messages that are answered."""


@dataclass(frozen=True)
class Report(Request):
    """Request to report the monitored metric of an epoch (from 0) to Optuna; answered when it is in the database."""

    value: float
    step: int


@dataclass(frozen=True)
class ShouldPrune(Request):
    """Request for the pruner's decision; answered with a bool."""


@dataclass(frozen=True)
class IsBest(Request):
    """Request whether a value of the monitored metric beats every complete trial; answered with a bool."""

    value: float


@dataclass(frozen=True)
class SetAttribute(Request):
    """Request to store a user attribute of the trial; JSON must be able to hold its value."""

    key: str
    value: Any


@dataclass(frozen=True)
class WriteEntry(Request):
    """Request to write an entry for MLflow; answered when it is on the disk of the study process."""

    entry: Entry


@dataclass(frozen=True)
class WrittenSteps(Request):
    """Request for the steps of a metric that have been written; answered with a set."""

    metric: str


@dataclass(frozen=True)
class RunId(Request):
    """Request for the trial's run; answered with its id, or None as long as MLflow has not been reached."""


@dataclass(frozen=True)
class Alive:
    """Sign of life of the trial."""


@dataclass(frozen=True)
class Progress:
    """Progress of the training.

    Args:
        epoch: Current epoch, counted from 0.
        epochs: Number of epochs; None or -1 if it is not limited.
        share: Finished share of the epoch, 0 to 1.
        metric: Last value of the monitored metric, if there is one.
    """

    epoch: int
    epochs: int | None
    share: float
    metric: float | None


@dataclass(frozen=True)
class Notice:
    """A line for the user, without the trial's number."""

    text: str


Message = Request | Alive | Progress | Notice | GpuUse | Outcome
