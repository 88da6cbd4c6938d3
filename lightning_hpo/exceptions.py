"""Errors that are shown to the user as plain lines, without a traceback."""

import signal
from collections.abc import Iterable, Sequence

__all__ = [
    "InputError",
    "LeaseLostError",
    "LightningHpoError",
    "NotFiniteError",
    "StoppedBySignalError",
    "StorageAwayError",
    "raise_problems",
]

_MOST_PROBLEMS = 20


class LightningHpoError(Exception):
    """Base class of all errors that are shown without a traceback."""


class InputError(LightningHpoError):
    """Invalid input: a flag, a file or a row of a file.

    Args:
        problems: One line for each problem: the flag, or the file and row; what it got; what would work. A line never
            contains text of a post.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        shown = self.problems[:_MOST_PROBLEMS]
        if len(self.problems) > _MOST_PROBLEMS:
            shown.append(f"... and {len(self.problems) - _MOST_PROBLEMS} more")
        super().__init__("\n".join(shown))

    def __reduce__(self) -> tuple[type["InputError"], tuple[list[str]]]:
        """Keep the list of problems when the error is pickled."""
        return InputError, (self.problems,)


def raise_problems(problems: Iterable[str]) -> None:
    """Raise one error that holds all problems, if there are any.

    Raises:
        InputError: With one line for each problem.
    """
    if found := list(problems):
        raise InputError(found)


class NotFiniteError(LightningHpoError):
    """A loss or metric of a trial is NaN or infinite. The trial fails."""


class StoppedBySignalError(LightningHpoError):
    """A signal has stopped the command before its end.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}")


class LeaseLostError(LightningHpoError):
    """Another process tunes the study now. This one must not write anything."""


class StorageAwayError(LightningHpoError):
    """Optuna's database has not accepted a connection within --study.storage_wait seconds."""
