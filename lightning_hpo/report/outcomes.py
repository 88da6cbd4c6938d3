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
        chosen = [trial for trial in trials if trial.state == state]
        if state == TrialState.FAIL:
            counts += _count_failures(chosen)
        elif chosen:
            counts.append(OutcomeCount(state, name, len(chosen)))
    return counts


def _count_failures(trials: Sequence[FrozenTrial]) -> list[OutcomeCount]:
    reasons = Counter(trial.user_attrs.get(TrialKey.REASON, "no reason recorded") for trial in trials).most_common()
    shown = [OutcomeCount(TrialState.FAIL, f"failed: {reason}", count) for reason, count in reasons[:_MAX_REASONS]]
    rest = sum(count for _, count in reasons[_MAX_REASONS:])
    return [*shown, OutcomeCount(TrialState.FAIL, "failed: other reasons", rest)] if rest else shown
