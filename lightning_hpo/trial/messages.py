"""Messages of a trial process to its study process.

A request is answered; every other message is not. `Outcome` is the last message of a trial.
"""

from dataclasses import dataclass
from typing import Any

from lightning_hpo.hardware.memory import GpuUse
from lightning_hpo.trial.outcome import Outcome

__all__ = [
    "IsBest",
    "Message",
    "Notice",
    "OutboxWritten",
    "Progress",
    "Report",
    "Request",
    "SetAttribute",
    "ShouldPrune",
]


@dataclass(frozen=True)
class Request:
    """Base class of the messages that are answered."""


@dataclass(frozen=True)
class Report(Request):
    """Request to report a value to Optuna; answered when it is in the database.

    Args:
        value: Value of the monitored metric.
        step: Epoch, counted from 0.
    """

    value: float
    step: int


@dataclass(frozen=True)
class ShouldPrune(Request):
    """Request for the pruner's decision; answered with a bool."""


@dataclass(frozen=True)
class IsBest(Request):
    """Request whether a value beats every complete trial; answered with a bool.

    Args:
        value: Value of the monitored metric.
    """

    value: float


@dataclass(frozen=True)
class SetAttribute(Request):
    """Request to store a user attribute of the trial.

    Args:
        key: Name of the attribute.
        value: A value that JSON can hold.
    """

    key: str
    value: Any


@dataclass(frozen=True)
class OutboxWritten:
    """The outbox has an entry to send."""


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
    """A line for the user.

    Args:
        text: The line, without the trial's number.
    """

    text: str


Message = Request | OutboxWritten | Progress | Notice | GpuUse | Outcome
