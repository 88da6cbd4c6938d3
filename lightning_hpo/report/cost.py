"""Cost of a study, and what pruning saved."""

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.outcomes import NAMES
from lightning_hpo.report.study_record import StudyRecord, seconds_of
from lightning_hpo.report.tables import Table
from lightning_hpo.study.eta import duration
from lightning_hpo.tracking.tracker import Run

__all__ = ["Savings", "cost", "pruning", "savings"]


@dataclass(frozen=True)
class Savings:
    """What pruning saved.

    Args:
        trials: Number of pruned trials.
        epochs: Epochs that these trials did not train.
        seconds: Estimated time of these epochs.
    """

    trials: int
    epochs: int
    seconds: float


def savings(record: StudyRecord) -> Savings:
    """Sum up over the pruned trials: the epochs not trained, times the trial's seconds per epoch."""
    pruned = record.of(TrialState.PRUNED)
    longest = max((len(trial.intermediate_values) for trial in record.complete), default=0)
    epochs, seconds = 0, 0.0
    for trial in pruned:
        run, trained = record.runs.get(trial.number), len(trial.intermediate_values)
        left = max(0, _planned_epochs(run, longest) - trained)
        epochs += left
        seconds += left * _seconds_per_epoch(trial, run, trained)
    return Savings(len(pruned), epochs, seconds)


def _planned_epochs(run: Run | None, longest: int) -> int:
    """Return the number of validated epochs in the trial's config, or else those of the longest trial."""
    params: Mapping[str, str] = run.params if run else {}
    epochs, every = params.get("trainer.max_epochs", ""), params.get("trainer.check_val_every_n_epoch", "1")
    if not (epochs.isdigit() and every.isdigit()) or int(every) < 1:
        return longest
    return int(epochs) // int(every)


def _seconds_per_epoch(trial: FrozenTrial, run: Run | None, trained: int) -> float:
    """Return the training time per epoch; loading data and weights is excluded, since it happens once."""
    startup = run.metrics.get("startup_s", 0.0) if run else 0.0
    return max(0.0, seconds_of(trial) - startup) / trained if trained else 0.0


def pruning(record: StudyRecord) -> Table:
    """Table of what pruning saved."""
    saved = savings(record)
    if not saved.trials:
        return Table("pruning", "Saved by pruning", "No trial was pruned.")
    spent = sum(seconds_of(trial) for trial in record.trials)
    rows = [
        ("pruned trials", str(saved.trials)),
        ("epochs not trained", str(saved.epochs)),
        ("time saved", duration(saved.seconds)),
        ("share of the cost without pruning", f"{saved.seconds / max(spent + saved.seconds, 1e-9):.0%}"),
    ]
    caption = (
        "For each pruned trial: the epochs not trained, times its seconds per epoch. "
        "This is an upper bound, because early stopping could have ended some of these trials."
    )
    return Table("pruning", "Saved by pruning", caption, ("", ""), rows)


def cost(record: StudyRecord) -> Table:
    """Table of the training time by outcome."""
    rows = []
    for state, name in NAMES.items():
        seconds = [seconds_of(trial) for trial in record.of(state)]
        if seconds:
            rows.append(_row(name, seconds))
    if not rows:
        return Table("cost", "Cost", "The study has no trials.")
    rows.append(_row("all", [seconds_of(trial) for trial in record.trials]))
    caption = f"Training time of the trials, over all their attempts.{_elapsed(record)}"
    return Table("cost", "Cost", caption, ("outcome", "trials", "total", "per trial", "total in seconds"), rows)


def _row(name: str, seconds: list[float]) -> tuple[str, ...]:
    total = sum(seconds)
    return name, str(len(seconds)), duration(total), duration(total / len(seconds)), f"{total:.0f}"


def _elapsed(record: StudyRecord) -> str:
    starts = [trial.datetime_start for trial in record.trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in record.trials if trial.datetime_complete]
    if not starts or not ends:
        return ""
    first, last = min(starts), max(ends)
    elapsed = duration((last - first).total_seconds())
    return f" The study took {elapsed}, from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}."
