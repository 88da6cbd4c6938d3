"""How long a study will take, from the trials that have ended."""

import heapq
from collections.abc import Sequence

__all__ = ["TimeEstimator", "duration"]


class TimeEstimator:
    """Seconds and epochs of the trials that have ended, and what follows for those to come.

    Args:
        total: Trials with an ending that the study shall have.
        workers: Trials that train at the same time.
        epochs: Validated epochs of a trial that nothing ends early; None where there is no such number.
    """

    def __init__(self, total: int, workers: int, epochs: int | None) -> None:
        self._total, self._workers, self._epochs = total, workers, epochs
        self._trials = 0
        self._seconds = 0.0
        self._validated = 0

    def add(self, seconds: float, epochs: int, trials: int = 1) -> None:
        """Take in a trial that has ended, pruned ones too.

        Args:
            seconds: Those from its start.
            epochs: Its validated epochs.
            trials: How many trials these are together.
        """
        self._trials += trials
        self._seconds += seconds
        self._validated += epochs

    def expected(self, *, prunes: bool) -> str | None:
        """What the trials to come cost if each trains all its epochs, in words; None before the first has ended.

        Args:
            prunes: Whether trials may be pruned.
        """
        to_go = self._total - self._trials
        if not self._trials or to_go <= 0:
            return None
        each = self._whole_trial()
        together = min(self._workers, to_go)
        trials = f"the {to_go} trials" if to_go > 1 else "the last trial"
        beside = f", {together} at a time" if together > 1 else ""
        seconds = _makespan(each, to_go, [0.0] * together)
        less = "; pruning will make it less" if prunes else ""
        return f"about {duration(seconds)} for {trials} to go ({duration(each)} each{beside}){less}"

    def left(self, running: Sequence[float]) -> float | None:
        """Seconds until the study is done, if the trials to come take as long as those that have ended took.

        Args:
            running: For how many seconds each running trial has run.

        Returns:
            Seconds; None before the first trial has ended.
        """
        if not self._trials:
            return None
        mean = self._seconds / self._trials
        begun = [max(0.0, mean - seconds) for seconds in running]
        free = max(0, self._workers - len(begun))
        return _makespan(mean, self._total - self._trials - len(begun), [*begun, *[0.0] * free])

    def _whole_trial(self) -> float:
        """Seconds of a trial with all its epochs, by the seconds that an epoch has taken."""
        if self._epochs is None or not self._validated:
            return self._seconds / self._trials
        return self._seconds / self._validated * self._epochs


def _makespan(each: float, trials: int, busy: Sequence[float]) -> float:
    """Seconds until all is done, where each trial goes to the worker that is free first.

    Args:
        each: Seconds of a trial.
        trials: Trials that have not begun.
        busy: Seconds for which each worker is not free yet; at least one.
    """
    ends = list(busy)
    heapq.heapify(ends)
    for _ in range(trials):
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def duration(seconds: float) -> str:
    """Seconds as people say them, such as `3 h 20 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join([f"{count} {unit}" for count, unit in units if count][:2])
