"""Estimate of the time that a study takes, from the trials that have ended."""

from collections.abc import Sequence

__all__ = ["TimeEstimator", "duration"]


class TimeEstimator:
    """Estimates the time of the remaining trials from the seconds and epochs of those that have ended.

    Args:
        total: Total number of trials of the study.
        workers: Number of trials that train at the same time.
        epochs: Validated epochs of a trial that runs to its end; None if they are not limited.
    """

    def __init__(self, total: int, workers: int, epochs: int | None) -> None:
        self._total, self._workers, self._epochs = total, workers, epochs
        self._trials = 0
        self._seconds = 0.0
        self._validated = 0

    def add(self, seconds: float, epochs: int, trials: int = 1) -> None:
        """Add the seconds of training and the validated epochs of a trial that has ended, or the sums of several."""
        self._trials += trials
        self._seconds += seconds
        self._validated += epochs

    def expected(self, *, prunes: bool) -> str | None:
        """Return the time of the remaining trials, as text, if each trains all its epochs; None before one ended."""
        remaining = self._total - self._trials
        if not self._trials or remaining <= 0:
            return None
        each = self._seconds / self._trials
        if self._epochs is not None and self._validated:
            each = self._seconds / self._validated * self._epochs
        together = min(self._workers, remaining)
        trials = f"the {remaining} trials" if remaining > 1 else "the last trial"
        parallel = f", {together} at a time" if together > 1 else ""
        seconds = _makespan(each, remaining, [0.0] * together)
        less = "; pruning shortens it" if prunes else ""
        return f"about {duration(seconds)} for {trials} left ({duration(each)} each{parallel}){less}"

    def left(self, running: Sequence[float]) -> float | None:
        """Return the seconds until the study is complete if further trials take as long as earlier ones.

        Args:
            running: Seconds since the start of each running trial.

        Returns:
            Seconds; None before the first trial has ended.
        """
        if not self._trials:
            return None
        mean = self._seconds / self._trials
        begun = [max(0.0, mean - seconds) for seconds in running]
        free = max(0, self._workers - len(begun))
        return _makespan(mean, self._total - self._trials - len(begun), [*begun, *[0.0] * free])


def _makespan(each: float, trials: int, busy: Sequence[float]) -> float:
    """Return the seconds until all trials have ended, each on the worker that is free first.

    Args:
        each: Seconds of a trial.
        trials: Number of trials that have not started.
        busy: Seconds until each worker is free, which differ by at most `each`; at least one worker.
    """
    # No worker gets a second trial before each has got one, in the order in which they are free.
    rounds, rest = divmod(max(0, trials), len(busy))
    return max(end + each * (rounds + (place < rest)) for place, end in enumerate(sorted(busy)))


def duration(seconds: float) -> str:
    """Return seconds as text, such as `3 h 20 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join([f"{count} {unit}" for count, unit in units if count][:2])
