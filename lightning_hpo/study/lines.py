"""Lines of a study on the terminal."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from rich.console import Console

from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.objective import Objective, comparable_baselines, score_text
from lightning_hpo.trial.outcome import Outcome, OutcomeKind

__all__ = ["listed", "outcome_line", "result_line", "waiting"]


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what the command waits for: with a spinner on a terminal, in a plain line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(what, markup=False, soft_wrap=True)
        yield
        return
    with console.status(what):
        yield


def outcome_line(outcome: Outcome, monitor: str) -> str:
    """Return the outcome of a trial in a line. Epochs are counted from 1 here, and from 0 in both databases."""
    epoch = 0 if outcome.epoch is None else outcome.epoch + 1
    if outcome.kind is OutcomeKind.COMPLETE:
        collapsed = ", collapsed: it predicts the same for every input" if outcome.collapsed else ""
        value = "?" if outcome.value is None else score_text(outcome.value)
        return f"complete: {monitor} {value} in epoch {epoch}{collapsed}"
    if outcome.kind is OutcomeKind.PRUNED:
        return f"pruned after epoch {epoch}"
    if outcome.kind in (OutcomeKind.INTERRUPTED, OutcomeKind.CRASHED):
        return f"paused: {outcome.reason}"
    return f"failed: {outcome.reason}"


def result_line(study: optuna.Study) -> str:
    """Return the best trial of a study in a line, with its parameters, and the baseline that it does not beat."""
    try:
        best = study.best_trial
    except ValueError:
        return "no trial is complete yet"
    searched = " ".join(f"--{flag} {_short(value)}" for flag, value in best.params.items())
    score = f"{study.user_attrs[StudyKey.MONITOR]} {score_text(study.best_value)}"
    objective, baselines = Objective.of(study), comparable_baselines(study.user_attrs)
    strongest = min(baselines, key=lambda name: objective.sort_key(baselines[name]), default=None)
    unbeaten = ""
    if strongest is not None and not objective.is_better(study.best_value, baselines[strongest]):
        unbeaten = f"; it does not beat the baseline {strongest}, {score_text(baselines[strongest])}"
    return f"best: trial {best.number}, {score}, with {searched}{unbeaten}"


def listed(counts: Mapping[str, float]) -> str:
    """Return counts in a line, such as `posts 600, windows 812`."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
