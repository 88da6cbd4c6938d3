"""How a study stands, for a person who comes back to it, and for programs."""

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from rich.console import Console, Group
from rich.table import Table

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.storage.connection import connect
from lightning_hpo.storage.summary import StudySummary, TrialSummary, study_names, summarize_study
from lightning_hpo.study.eta import TimeEstimator, duration
from lightning_hpo.study.lock import lock_holder

__all__ = ["print_status"]

_WIDTH_OF_A_FILE = 160
_WORKER = "worker"
_ENDINGS = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "parked": TrialState.WAITING,
}


def print_status(name: str | None, storage: DatabaseUrl, *, as_json: bool = False) -> None:
    """Print how a study stands, or a line for each study; nothing is written.

    Args:
        name: The study; None for all.
        storage: Optuna's database.
        as_json: For programs; see `figures`.

    Raises:
        InputError: If there is no such database or study.
    """
    with connect(storage) as connection:
        names = study_names(connection)
        found = [summarize_study(connection, each) for each in (names if name is None else [name])]
    console = Console(highlight=False, markup=False)  # a command may have brackets
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    if as_json:
        all_of_them = [figures(each, names) for each in found]
        print(json.dumps(all_of_them if name is None else all_of_them[0], indent=2))
    elif name is None:
        console.print(_overview(found))
    else:
        console.print(_detail(found[0], names))


def figures(study: StudySummary, names: list[str]) -> dict[str, Any]:
    """The figures of a study, under keys that stay.

    Args:
        study: The study.
        names: Names of all studies of its database.
    """
    about = study.about
    return {
        "study": study.name,
        "agent": about.get("agent"),
        "monitor": about.get("monitor"),
        "done": study.done,
        "total": about.get("n_trials"),
        "best": None if study.best is None else {"trial": study.best[0], "value": study.best[1]},
        "constant_answers": about.get("constant_answers", {}),
        "endings": {word: study.counts.get(state, 0) for word, state in _ENDINGS.items()},
        "failures": {reason or "not said": count for reason, count in study.failures.items()},
        "collapsed": study.collapsed,
        "seconds_a_trial": study.seconds,
        "seconds_left": _seconds_left(study),
        "running": [_running(trial, about) for trial in study.of(TrialState.RUNNING)],
        "tuned_by": _holder(study),
        "started_from": about.get("started_from", {}).get("study"),
        "outdir": about.get("outdir"),
        "next": _next(study, names),
    }


def _running(trial: TrialSummary, about: Mapping[str, Any]) -> dict[str, Any]:
    worker = trial.attributes.get(_WORKER, {})
    return {
        "trial": trial.number,
        "epoch": trial.epochs,
        "epochs": about.get("epochs"),
        "since": worker.get("since", trial.began),
        "host": worker.get("host"),
        "pid": worker.get("pid"),
        "device": worker.get("device"),
        "device_index": worker.get("device_index"),
    }


def _holder(study: StudySummary) -> str | None:
    outdir = study.about.get("outdir")
    return None if outdir is None else lock_holder(Path(outdir))


def _seconds_left(study: StudySummary) -> float | None:
    total = study.about.get("n_trials")
    if study.seconds is None or total is None or study.about.get("exhausted"):
        return None
    to_go = max(0, total - study.done)
    running = study.of(TrialState.RUNNING)[:to_go]
    eta = TimeEstimator(total, max(study.about.get("workers", 1), len(running)), None)
    eta.add(study.seconds * study.done, 0, study.done)
    now = time.time()
    begun = [now - since for trial in running if (since := _running(trial, study.about)["since"]) is not None]
    return eta.left(begun) if to_go else 0.0


def _next(study: StudySummary, names: list[str]) -> str:
    """What to do now, in a line."""
    about, name = study.about, shlex.quote(study.name)
    again = about.get("command") or "the same `lightning-hpo tune`"
    pid = _holder(study)
    if pid is not None:
        return f"nothing: process {pid} tunes it; kill -INT {pid} parks what runs"
    if "agent" not in about:
        return "nothing: it was not tuned here"
    if study.of(TrialState.RUNNING) and not Path(about["outdir"]).is_dir():
        return f"trials run on another machine, the one with {about['outdir']}; or they have died: reconcile it there"
    if study.done < about.get("n_trials", 0) and not about.get("exhausted"):
        return f"go on with it: {again}"
    if "refit_of" in about:
        return f"see what it says: {again}"
    if f"{study.name}-refit" not in names:
        return f"it has all its trials: lightning-hpo report {name}, lightning-hpo refit {name}"
    return f"it has all its trials: lightning-hpo report {name}, lightning-hpo register --study {name}"


def _overview(studies: list[StudySummary]) -> Table:
    table = Table("study", "agent", "trials", "best", box=None)
    for study in studies:
        best = "-" if study.best is None else f"{study.best[1]:.4f}"
        table.add_row(study.name, str(study.about.get("agent", "-")), str(sum(study.counts.values())), best)
    return table


def _detail(study: StudySummary, names: list[str]) -> Group:
    parts = [_summary(study, names)]
    parts += [_running_table(study)] if study.of(TrialState.RUNNING) else []
    return Group(*parts, _latest_table(study.latest))


def _summary(study: StudySummary, names: list[str]) -> Table:
    told, about = figures(study, names), study.about
    table = Table(box=None, show_header=False)
    table.add_row("study", f"{study.name} ({about.get('agent', '-')}, {about.get('monitor', '-')})")
    if told["started_from"] is not None:
        table.add_row("started from", told["started_from"])
    table.add_row("done", f"{study.done} of {about.get('n_trials', '?')}")
    kinds = [f"{count} {word}" for word, count in told["endings"].items() if count]
    table.add_row("endings", ", ".join(kinds) or "none yet")
    for reason, count in told["failures"].items():
        table.add_row("failed", f"{count}: {reason}")
    if study.best is not None:
        table.add_row("best", f"{study.best[1]:.4f} in trial {study.best[0]}")
    if study.collapsed:
        table.add_row("collapsed", f"{study.collapsed} give one answer to everything")
    for answer, value in told["constant_answers"].items():
        table.add_row(f"constant: {answer}", f"{value:.4f}")
    if study.seconds is not None:
        table.add_row("a trial takes", duration(study.seconds))
    if told["seconds_left"]:
        table.add_row("time left", f"about {duration(told['seconds_left'])}")
    table.add_row("in", str(about.get("outdir", "-")))
    table.add_row("next", told["next"])
    return table


def _running_table(study: StudySummary) -> Table:
    table = Table("running", "epoch", "for", "on", "process", box=None)
    now = time.time()
    for trial in (_running(each, study.about) for each in study.of(TrialState.RUNNING)):
        gpu = "" if trial["device_index"] is None else f" {trial['device_index']}"
        table.add_row(
            f"trial {trial['trial']}",
            f"{trial['epoch']} of {trial['epochs'] or '?'} done",
            "-" if trial["since"] is None else duration(now - trial["since"]),
            f"{trial['device'] or '-'}{gpu}",
            "-" if trial["pid"] is None else f"{trial['pid']} on {trial['host']}",
        )
    return table


def _latest_table(trials: list[TrialSummary]) -> Table:
    table = Table("trial", "state", "value", "epochs", "time", "note", box=None)
    for trial in trials:
        seconds = trial.attributes.get("runtime_s")
        note = "collapsed" if trial.attributes.get("collapsed") else str(trial.attributes.get("ended_by", ""))
        table.add_row(
            str(trial.number),
            next(word for word, state in _ENDINGS.items() if state == trial.state),
            "-" if trial.value is None else f"{trial.value:.4f}",
            str(trial.epochs),
            "-" if seconds is None else f"{seconds:.0f}s",
            note,
        )
    return table
