"""Outcomes of trials: their names, their colors, and how many trials have each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

__all__ = ["BEST", "COLLAPSED", "COLORS", "COMPLETE", "NAMES", "OutcomeCount", "count_outcomes"]

# Colors that color-blind readers can tell apart (Okabe and Ito 2008).
BEST = "#c0392b"
COMPLETE = "#0072b2"
COLLAPSED = "#767676"
COLORS = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: "#e69f00",
    TrialState.FAIL: "#000000",
    TrialState.RUNNING: "#009e73",
    TrialState.WAITING: "#cc79a7",
}
NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "paused",
}

_MAX_REASONS = 8


@dataclass(frozen=True)
class OutcomeCount:
    """Number of trials with one outcome.

    Args:
        state: Their state.
        label: The outcome, and for failed trials the reason.
        count: Number of trials.
    """

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
    reasons = Counter(str(trial.user_attrs.get("ended_by", "no reason recorded")) for trial in trials).most_common()
    shown = [OutcomeCount(TrialState.FAIL, f"failed: {reason}", count) for reason, count in reasons[:_MAX_REASONS]]
    rest = sum(count for _, count in reasons[_MAX_REASONS:])
    return [*shown, OutcomeCount(TrialState.FAIL, "failed: other reasons", rest)] if rest else shown
