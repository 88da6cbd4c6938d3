"""Status of studies: a table for people, JSON for programs."""

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
from lightning_hpo.report.outcomes import NAMES
from lightning_hpo.storage.connection import connect
from lightning_hpo.storage.summary import StudySummary, TrialSummary, study_names, summarize_study
from lightning_hpo.study.eta import TimeEstimator, duration
from lightning_hpo.study.lock import lock_holder

__all__ = ["print_status"]

_FILE_WIDTH = 160
_WORKER = "worker"
_JSON_KEYS = NAMES | {TrialState.WAITING: "parked"}  # Paused trials keep the key that programs already read.


def print_status(name: str | None, storage: DatabaseUrl, *, as_json: bool = False) -> None:
    """Print the status of a study, or one line for each study; the database is only read.

    Args:
        name: The study; None for all.
        storage: Optuna's database.
        as_json: Print JSON; see `to_json` for the keys.

    Raises:
        InputError: If the database or the study does not exist.
    """
    with connect(storage) as connection:
        names = study_names(connection)
        found = [summarize_study(connection, each) for each in (names if name is None else [name])]
    console = Console(highlight=False, markup=False)  # Commands may contain brackets.
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    if as_json:
        converted = [to_json(each, names) for each in found]
        print(json.dumps(converted if name is None else converted[0], indent=2))
    elif name is None:
        console.print(_overview(found))
    else:
        console.print(_detail(found[0], names))


def to_json(study: StudySummary, names: list[str]) -> dict[str, Any]:
    """Return the status of a study as JSON values; the keys are stable.

    Args:
        study: The study.
        names: Names of all studies in its database.
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
        "endings": {key: study.counts.get(state, 0) for state, key in _JSON_KEYS.items()},
        "failures": {reason or "no reason recorded": count for reason, count in study.failures.items()},
        "collapsed": study.collapsed,
        "seconds_a_trial": study.seconds,
        "seconds_left": _seconds_left(study),
        "running": [_running(trial, about) for trial in study.of(TrialState.RUNNING)],
        "tuned_by": _lock_holder(study),
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


def _lock_holder(study: StudySummary) -> str | None:
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
    """Return the next step for the user, in one line."""
    about, name = study.about, shlex.quote(study.name)
    command = about.get("command") or "the same `lightning-hpo tune` command"
    pid = _lock_holder(study)
    if pid is not None:
        return f"nothing: process {pid} runs the study; to pause it: kill -INT {pid}"
    if "agent" not in about:
        return "nothing: the study was not made by `tune`"
    if study.of(TrialState.RUNNING) and not Path(about["outdir"]).is_dir():
        return f"trials run on the machine with {about['outdir']}; if not, run `lightning-hpo reconcile` there"
    if study.done < about.get("n_trials", 0) and not about.get("exhausted"):
        return f"resume the study: {command}"
    if "refit_of" in about:
        return f"print the result: {command}"
    if f"{study.name}-refit" not in names:
        return f"the study is complete: lightning-hpo report {name}, lightning-hpo refit {name}"
    return f"the study is complete: lightning-hpo report {name}, lightning-hpo register --study {name}"


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
    status, about = to_json(study, names), study.about
    table = Table(box=None, show_header=False)
    table.add_row("study", f"{study.name} ({about.get('agent', '-')}, {about.get('monitor', '-')})")
    if status["started_from"] is not None:
        table.add_row("started from", status["started_from"])
    table.add_row("done", f"{study.done} of {about.get('n_trials', '?')}")
    outcomes = [f"{study.counts[state]} {outcome}" for state, outcome in NAMES.items() if study.counts.get(state)]
    table.add_row("outcomes", ", ".join(outcomes) or "none yet")
    for reason, count in status["failures"].items():
        table.add_row("failed", f"{count}: {reason}")
    if study.best is not None:
        table.add_row("best", f"{study.best[1]:.4f} in trial {study.best[0]}")
    if study.collapsed:
        table.add_row("collapsed", f"{study.collapsed} predict the same for every example")
    for baseline, value in status["constant_answers"].items():
        table.add_row(f"baseline: {baseline}", f"{value:.4f}")
    if study.seconds is not None:
        table.add_row("time per trial", duration(study.seconds))
    if status["seconds_left"]:
        table.add_row("time left", f"about {duration(status['seconds_left'])}")
    table.add_row("folder", str(about.get("outdir", "-")))
    table.add_row("next", status["next"])
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
            NAMES[trial.state],
            "-" if trial.value is None else f"{trial.value:.4f}",
            str(trial.epochs),
            "-" if seconds is None else f"{seconds:.0f}s",
            note,
        )
    return table
