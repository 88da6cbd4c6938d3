"""Cost of a study, and what pruning saved."""

import math
import re

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.outcomes import NAMES
from lightning_hpo.report.study_record import StudyRecord, seconds_of
from lightning_hpo.report.tables import Table
from lightning_hpo.study.eta import duration
from lightning_hpo.tracking.tracker import Run

__all__ = ["cost", "pruning", "savings"]

_NUMBER, _COUNT = re.compile("[0-9]{1,9}"), re.compile("[1-9][0-9]{0,8}")
_NO_RUN = Run("", "", {})


def savings(record: StudyRecord) -> tuple[int, float]:
    """Return what pruning saved: the epochs not trained, and these times their trial's seconds per epoch."""
    longest = max((len(trial.intermediate_values) for trial in record.complete), default=0)
    epochs, seconds = 0, 0.0
    for trial in record.of(TrialState.PRUNED):
        run = record.runs.get(trial.number, _NO_RUN)
        left = max(0, _planned_epochs(run, longest) - len(trial.intermediate_values))
        epochs += left
        seconds += left * _seconds_per_epoch(trial, run)
    return epochs, seconds


def _planned_epochs(run: Run, longest: int) -> int:
    """Return the number of validated epochs in the trial's config, or else those of the longest trial."""
    epochs = run.params.get("trainer.max_epochs", "")
    every = run.params.get("trainer.check_val_every_n_epoch", "1")
    # Anybody who can write to MLflow can set a parameter.
    return int(epochs) // int(every) if _NUMBER.fullmatch(epochs) and _COUNT.fullmatch(every) else longest


def _seconds_per_epoch(trial: FrozenTrial, run: Run) -> float:
    """Return the training time per epoch; loading data and weights is excluded, since it happens once."""
    trained = len(trial.intermediate_values)
    startup = run.metrics.get("startup_s", 0.0)
    startup = max(0.0, startup) if math.isfinite(startup) else 0.0
    return max(0.0, seconds_of(trial) - startup) / trained if trained else 0.0


def pruning(record: StudyRecord) -> Table:
    """Table of what pruning saved."""
    trials, (epochs, seconds) = len(record.of(TrialState.PRUNED)), savings(record)
    if not trials:
        return Table("pruning", "Saved by pruning", "No trial was pruned.")
    spent = sum(map(seconds_of, record.trials))
    rows = [
        ("pruned trials", str(trials)),
        ("epochs not trained", str(epochs)),
        ("time saved", duration(seconds)),
        ("share of the cost without pruning", f"{seconds / max(spent + seconds, 1e-9):.0%}"),
    ]
    caption = (
        "For each pruned trial: the epochs not trained, times its seconds per epoch. "
        "This is an upper bound, because early stopping could have ended some of these trials."
    )
    return Table("pruning", "Saved by pruning", caption, ("", ""), rows)


def cost(record: StudyRecord) -> Table:
    """Table of the training time by outcome."""
    if not record.trials:
        return Table("cost", "Cost", "The study has no trials.")
    by_outcome = {name: [seconds_of(trial) for trial in record.of(state)] for state, name in NAMES.items()}
    by_outcome["all"] = [seconds_of(trial) for trial in record.trials]
    rows = [
        (name, str(len(times)), duration(total := sum(times)), duration(total / len(times)), f"{total:.0f}")
        for name, times in by_outcome.items()
        if times
    ]
    caption = f"Training time of the trials, over all their attempts.{_elapsed(record)}"
    return Table("cost", "Cost", caption, ("outcome", "trials", "total", "per trial", "total in seconds"), rows)


def _elapsed(record: StudyRecord) -> str:
    starts = [trial.datetime_start for trial in record.trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in record.trials if trial.datetime_complete]
    if not starts or not ends:
        return ""
    first, last = min(starts), max(ends)
    elapsed = duration((last - first).total_seconds())
    return f" The study took {elapsed}, from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}."
