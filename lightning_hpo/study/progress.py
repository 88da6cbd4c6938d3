"""What a person sees while a study runs: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import optuna
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from lightning_hpo.study.eta import TimeEstimator, duration
from lightning_hpo.study.recorder import Outcome, OutcomeKind

__all__ = ["ProgressDisplay", "ending_line", "result_line", "waiting"]


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for: with a spinner on a terminal, in a plain line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(what, markup=False, soft_wrap=True)
        yield
        return
    with console.status(what):
        yield


class ProgressDisplay:
    """One bar for the study (done of total, best so far, time left), and one line for each running trial.

    Args:
        total: Trials with an ending that the study shall have.
        done: Those that it has.
        monitor: Name of the metric.
        eta: Knows how long trials take; whoever shows them tells it.
    """

    def __init__(self, total: int, done: int, monitor: str, eta: TimeEstimator) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._total, self._done, self._monitor = total, done, monitor
        self._best: float | None = None
        self._eta = eta
        self._since: dict[int, float] = {}
        self._told: dict[int, int] = {}
        self._tasks: dict[int, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._study = self._progress.add_task("study", total=total, completed=done, note="")

    def __enter__(self) -> "ProgressDisplay":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, markup=False, soft_wrap=True)

    def best_is(self, value: float | None) -> None:
        """Show the best value so far."""
        self._best = value
        self._progress.update(self._study, completed=self._done, note=self._note())

    def started(self, number: int, resumed: bool) -> None:
        """A trial begins, or goes on."""
        self._since[number] = time.monotonic()
        self._tasks[number] = self._progress.add_task(f"trial {number}", total=1.0, note="starting")
        if not self._live:
            self.say(f"trial {number} {'goes on' if resumed else 'starts'}")

    def trains(self, number: int, epoch: int, epochs: int | None, share: float, metric: float | None) -> None:
        """A trial has come so far."""
        shown = "" if metric is None else f"{self._monitor} {metric:.4f}"
        if number in self._tasks:
            self._progress.update(
                self._tasks[number], total=epochs or None, completed=round(epoch + share, 2), note=shown
            )
        if share == 1.0:
            self._progress.update(self._study, note=self._note())
        if not self._live and share == 1.0 and self._told.get(number) != epoch:
            self._told[number] = epoch
            self.say(f"trial {number} epoch {epoch + 1}/{epochs or '?'} {shown}".rstrip())

    def ended(self, number: int, line: str, counts: bool) -> None:
        """A trial has ended."""
        if number in self._tasks:
            self._progress.remove_task(self._tasks.pop(number))
            del self._since[number]
        self._done += counts
        self._progress.update(self._study, completed=self._done, note=self._note())
        self.say(f"trial {number} {line}" + ("" if self._live else f"  [{self._done}/{self._total}{self._note()}]"))

    def _note(self) -> str:
        best = "" if self._best is None else f"  best {self._monitor} {self._best:.4f}"
        now = time.monotonic()
        left = self._eta.left([now - since for since in self._since.values()])
        return best if left is None or self._done >= self._total else f"{best}  {duration(left)} left"


def ending_line(outcome: Outcome, monitor: str) -> str:
    """Say how a trial has ended."""
    if outcome.ending is OutcomeKind.COMPLETE:
        collapsed = ", collapsed: every answer is the same" if outcome.collapsed else ""
        return f"complete: {monitor} {outcome.value:.4f} in epoch {_counted(outcome.epoch)}{collapsed}"
    if outcome.ending is OutcomeKind.PRUNED:
        return f"pruned after epoch {_counted(outcome.epoch)}"
    if outcome.ending in (OutcomeKind.INTERRUPTED, OutcomeKind.DIED):
        return f"parked: {outcome.reason}"
    return f"failed: {outcome.reason}"


def _counted(epoch: int | None) -> int:
    """An epoch as people count them, from 1; both databases count from 0, as Lightning does."""
    return 0 if epoch is None else epoch + 1


def result_line(study: optuna.Study) -> str:
    """Say which trial is the best, and how."""
    try:
        best = study.best_trial
    except ValueError:
        return "no trial is complete yet"
    searched = " ".join(f"--{flag} {_short(value)}" for flag, value in best.params.items())
    return f"best: trial {best.number}, {study.user_attrs['monitor']} {best.value:.4f}, with {searched}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
