"""How a study stands, for a person who comes back to it."""

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lightning_hpo.study import load_study, open_storage

__all__ = ["print_status"]

_WIDTH_OF_A_FILE = 160


def print_status(name: str | None, storage: str) -> None:
    """Print how a study stands, or a line for each study; nothing is written.

    Args:
        name: The study; None for all.
        storage: Optuna's database.

    Raises:
        InputError: If there is no such database or study.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    if name is None:
        console.print(_overview(storage))
    else:
        console.print(_detail(load_study(name, storage)))


def _overview(storage: str) -> Table:
    table = Table("study", "agent", "trials", "best", box=None)
    opened = open_storage(storage, create=False, flag="--storage")
    for summary in optuna.get_all_study_summaries(opened):
        best = summary.best_trial.value if summary.best_trial else None
        shown = "-" if best is None else f"{best:.4f}"
        table.add_row(summary.study_name, str(summary.user_attrs.get("agent", "-")), str(summary.n_trials), shown)
    return table


def _detail(study: optuna.Study) -> Group:
    trials = study.get_trials(deepcopy=False)
    parts: list[Table | Text] = [_figures(study, trials), _table(trials)]
    return Group(*parts)


def _figures(study: optuna.Study, trials: list[FrozenTrial]) -> Table:
    about = study.user_attrs
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    ended = counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]
    parked = counts[TrialState.WAITING]
    table = Table(box=None, show_header=False)
    table.add_row("study", f"{study.study_name} ({about.get('agent', '-')}, {about.get('monitor', '-')})")
    table.add_row("done", f"{ended} of {about.get('n_trials', '?')}")
    kinds = [
        f"{count} {state.name.lower()}" for state, count in counts.items() if count and state != TrialState.WAITING
    ]
    table.add_row("endings", ", ".join([*kinds, *([f"{parked} parked"] if parked else [])]) or "none yet")
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if complete:
        best = study.best_trial
        table.add_row("best", f"{best.value:.4f} in trial {best.number}")
    for name, value in about.get("constant_answers", {}).items():
        table.add_row(f"constant: {name}", f"{value:.4f}")
    table.add_row("in", str(about.get("outdir", "-")))
    return table


def _table(trials: list[FrozenTrial], most: int = 20) -> Table:
    table = Table("trial", "state", "value", "epochs", "time", "note", box=None)
    for trial in trials[-most:]:
        value = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=None)
        state = "parked" if trial.state == TrialState.WAITING else trial.state.name.lower()
        note = "collapsed" if trial.user_attrs.get("collapsed") else str(trial.user_attrs.get("ended_by", ""))
        table.add_row(
            str(trial.number),
            state,
            "-" if value is None else f"{value:.4f}",
            str(len(trial.intermediate_values)),
            "-" if trial.duration is None else f"{trial.duration.total_seconds():.0f}s",
            note,
        )
    return table
