"""What a study cost, and what pruning saved of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.colours import ENDINGS
from lightning_hpo.report.study_record import StudyRecord, seconds_of
from lightning_hpo.report.table import Table
from lightning_hpo.study.eta import duration
from lightning_hpo.tracking.tracker import Run

__all__ = ["Saving", "cost", "pruning", "saving"]


@dataclass(frozen=True)
class Saving:
    """What pruning saved.

    Args:
        trials: Trials that were pruned.
        epochs: Epochs that these would have gone on for.
        seconds: What the epochs would have taken.
    """

    trials: int
    epochs: int
    seconds: float


def saving(record: StudyRecord) -> Saving:
    """Sum over the pruned trials: epochs that were not trained, times the seconds that the trial's own epochs took."""
    pruned = record.of(TrialState.PRUNED)
    longest = max((len(trial.intermediate_values) for trial in record.complete), default=0)
    epochs, seconds = 0, 0.0
    for trial in pruned:
        run, done = record.runs.get(trial.number), len(trial.intermediate_values)
        left = max(0, _planned(run, longest) - done)
        epochs += left
        seconds += left * _seconds_an_epoch(trial, run, done)
    return Saving(len(pruned), epochs, seconds)


def _planned(run: Run | None, longest: int) -> int:
    """Validated epochs of a trial that nothing ends early; unless its config says, those of the longest trial."""
    params: Mapping[str, str] = run.params if run else {}
    epochs, every = params.get("trainer.max_epochs", ""), params.get("trainer.check_val_every_n_epoch", "1")
    if not (epochs.isdigit() and every.isdigit()) or int(every) < 1:
        return longest
    return int(epochs) // int(every)


def _seconds_an_epoch(trial: FrozenTrial, run: Run | None, done: int) -> float:
    """Of its training alone: the time to load data and weights is not spent again by more epochs."""
    startup = run.metrics.get("startup_s", 0.0) if run else 0.0
    return max(0.0, seconds_of(trial) - startup) / done if done else 0.0


def pruning(record: StudyRecord) -> Table:
    """What pruning saved, in words and figures."""
    found = saving(record)
    if not found.trials:
        return Table("pruning", "What pruning saved", "No trial was pruned.")
    spent = sum(seconds_of(trial) for trial in record.trials)
    rows = [
        ("pruned trials", str(found.trials)),
        ("epochs not trained", str(found.epochs)),
        ("time saved", duration(found.seconds)),
        ("share of what it all would have cost", f"{found.seconds / max(spent + found.seconds, 1e-9):.0%}"),
    ]
    says = (
        "Each pruned trial's epochs that were not trained, times what its own epochs took; an estimate from above, "
        "since patience could have ended some of them."
    )
    return Table("pruning", "What pruning saved", says, ("", ""), rows)


def cost(record: StudyRecord) -> Table:
    """Seconds in all and a trial, by ending."""
    rows = []
    for state, (ending, _) in ENDINGS.items():
        seconds = [seconds_of(trial) for trial in record.of(state)]
        if seconds:
            rows.append(_row(ending, seconds))
    if not rows:
        return Table("cost", "Cost", "Nothing has been trained.")
    rows.append(_row("all", [seconds_of(trial) for trial in record.trials]))
    says = "Time that trials have trained, over all their attempts." + _between(record)
    return Table("cost", "Cost", says, ("ending", "trials", "in all", "a trial", "seconds in all"), rows)


def _row(name: str, seconds: list[float]) -> tuple[str, ...]:
    total = sum(seconds)
    return name, str(len(seconds)), duration(total), duration(total / len(seconds)), f"{total:.0f}"


def _between(record: StudyRecord) -> str:
    starts = [trial.datetime_start for trial in record.trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in record.trials if trial.datetime_complete]
    if not starts or not ends:
        return ""
    first, last = min(starts), max(ends)
    lasted = duration((last - first).total_seconds())
    return f" From the first start, {first:%Y-%m-%d %H:%M}, to the last end, {last:%Y-%m-%d %H:%M}, it is {lasted}."
