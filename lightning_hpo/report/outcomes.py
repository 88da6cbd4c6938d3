"""Outcomes of trials: their names, their colors, and how many trials have each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.storage.attributes import TrialKey

__all__ = ["BEST", "COLLAPSED", "COLORS", "NAMES", "OutcomeCount", "count_outcomes"]

# Colors that color-blind readers can tell apart (Okabe and Ito 2008).
BEST = "#c0392b"
COLLAPSED = "#767676"
COLORS = {
    TrialState.COMPLETE: "#0072b2",
    TrialState.PRUNED: "#e69f00",
    TrialState.FAIL: "#000000",
    TrialState.RUNNING: "#009e73",
    TrialState.WAITING: "#cc79a7",
}
NAMES = dict(zip(COLORS, ("complete", "pruned", "failed", "running", "paused"), strict=True))

_MAX_REASONS = 8


@dataclass(frozen=True)
class OutcomeCount:
    """Number of trials with one outcome; the label of failed trials has the reason."""

    state: TrialState
    label: str
    count: int


def count_outcomes(trials: Sequence[FrozenTrial]) -> list[OutcomeCount]:
    """Count the trials by outcome, and failed trials by reason; rare reasons are added up."""
    counts = []
    for state, name in NAMES.items():
        labels = Counter(_label(trial, name) for trial in trials if trial.state == state).most_common()
        counts += [OutcomeCount(state, label, count) for label, count in labels[:_MAX_REASONS]]
        if rest := labels[_MAX_REASONS:]:
            counts.append(OutcomeCount(state, "failed: other reasons", sum(count for _, count in rest)))
    return counts


def _label(trial: FrozenTrial, name: str) -> str:
    reason = trial.user_attrs.get(TrialKey.REASON, "no reason recorded")
    return f"{name}: {reason}" if trial.state == TrialState.FAIL else name
