"""Colours that people with any eyes can tell apart (Okabe and Ito 2008), one for each ending."""

from optuna.trial import TrialState

__all__ = ["BEST", "COMPLETE", "ENDINGS", "FIFTHS", "QUIET"]

BEST = "#c0392b"
COMPLETE = "#0072b2"
QUIET = "#767676"

ENDINGS = {
    TrialState.COMPLETE: ("complete", COMPLETE),
    TrialState.PRUNED: ("pruned", "#e69f00"),
    TrialState.FAIL: ("failed", "#000000"),
    TrialState.RUNNING: ("running", "#009e73"),
    TrialState.WAITING: ("parked", "#cc79a7"),
}
"""What each state is called and its colour."""

FIFTHS = ("#bdbdbd", "#9ecae1", "#6baed6", "#3182bd", "#08306b")
"""From the worst fifth of the scores to the best."""
