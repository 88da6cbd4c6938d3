"""Errors that a user is meant to read: lines, never tracebacks."""

from collections.abc import Sequence

__all__ = ["InputError", "LightningHpoError", "NotFiniteError", "StorageAwayError"]

_MOST_PROBLEMS = 20


class LightningHpoError(Exception):
    """Base of every error that is shown to the user as plain lines."""


class InputError(LightningHpoError):
    """Input that cannot be used: a flag, a file, a row.

    Args:
        problems: One line for each problem. A line names the flag or the file and row, what it got, and what would
            work. It never holds text of a post.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        shown = self.problems[:_MOST_PROBLEMS]
        if len(self.problems) > _MOST_PROBLEMS:
            shown.append(f"... and {len(self.problems) - _MOST_PROBLEMS} more")
        super().__init__("\n".join(shown))

    def __reduce__(self) -> tuple[type["InputError"], tuple[list[str]]]:
        """Keep the list of problems when the error crosses a process."""
        return InputError, (self.problems,)


class NotFiniteError(LightningHpoError):
    """A loss or metric is NaN or infinite: the trial has failed."""


class StorageAwayError(LightningHpoError):
    """Optuna's database has not accepted a connection within --study.storage_wait seconds."""
