"""Trial-process side of the connection to the study process."""

from multiprocessing.connection import Connection
from typing import Any

from lightning_hpo.trial.messages import IsBest, Message, OutboxWritten, Report, Request, SetAttribute, ShouldPrune

__all__ = ["RemoteTrial", "StudyExitedError"]


class StudyExitedError(BrokenPipeError):
    """The study process has exited, or has stopped to read the trial's messages."""


class RemoteTrial:
    """Behaves like `optuna.Trial` and forwards each call to the study process.

    So a trial process does not open Optuna's database and reads no earlier trials, however many there are.

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

    def outbox_written(self) -> None:
        """Let the study process send what the outbox holds, without waiting for it."""
        self.send(OutboxWritten())

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
