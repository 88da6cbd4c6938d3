"""Trial-process side of the connection to the study process."""

from multiprocessing.connection import Connection
from typing import Any

from lightning_hpo.tracking.entries import Entry
from lightning_hpo.trial.messages import (
    IsBest,
    Message,
    Report,
    Request,
    RunId,
    SetAttribute,
    ShouldPrune,
    WriteEntry,
    WrittenSteps,
)

__all__ = ["RemoteTrial", "StudyExitedError"]


class StudyExitedError(BrokenPipeError):
    """The study process has exited, or has stopped to read the trial's messages."""


class RemoteTrial:
    """Behaves like `optuna.Trial` and forwards each call to the study process.

    So a trial process does not open Optuna's database and reads no earlier trials, however many there are. It writes no
    entries for MLflow either.

    Raises:
        StudyExitedError: From every method, if the study process has exited.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def report(self, value: float, step: int) -> None:
        """Report a value to Optuna; on return it is in the database."""
        self._request(Report(float(value), int(step)))

    def should_prune(self) -> bool:
        """Return whether the pruner stops the trial."""
        return bool(self._request(ShouldPrune()))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Store a user attribute of the trial."""
        self._request(SetAttribute(key, value))

    def is_best(self, value: float) -> bool:
        """Return whether the value is better than that of every complete trial."""
        return bool(self._request(IsBest(value)))

    def write(self, entry: Entry) -> None:
        """Write an entry for MLflow; on return it is on the disk, and is sent without waiting for it."""
        self._request(WriteEntry(entry))

    def steps(self, metric: str) -> set[int]:
        """Return the steps of a metric that have been written."""
        return set(self._request(WrittenSteps(metric)))

    @property
    def run_id(self) -> str | None:
        """MLflow's run of the trial; None as long as MLflow has not been reached."""
        answer: str | None = self._request(RunId())
        return answer

    def send(self, message: Message) -> None:
        """Send a message that is not answered."""
        try:
            self._pipe.send(message)
        except OSError as error:
            raise StudyExitedError from error

    def _request(self, request: Request) -> Any:
        self.send(request)
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise StudyExitedError from error
