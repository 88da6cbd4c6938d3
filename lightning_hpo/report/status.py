"""Status of studies: a table for people, JSON for programs."""

import itertools
import json
import shlex
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from lightning_hpo.data.split_sizes import recorded_sizes, sizes_line
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.report.outcomes import NAMES
from lightning_hpo.storage.attributes import StudyKey, TrialKey, locate_folder
from lightning_hpo.storage.connection import connect
from lightning_hpo.storage.objective import comparable_baselines, score_text
from lightning_hpo.storage.summary import StudySummary, TrialSummary, study_names, summarize_study
from lightning_hpo.study.eta import TimeEstimator, duration
from lightning_hpo.study.lock import lock_holder
from lightning_hpo.study_folder import StudyFolder
from lightning_hpo.terminal.printable import printable

__all__ = ["print_status"]

_FILE_WIDTH = 160
_SILENT_S = 600.0
_FAILED_IN_A_ROW = 3
_INTERRUPTED = "interrupted"
"""A trial whose process has exited without closing it; `tune` resumes it."""
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
    for study in found:
        if StudyKey.OUTDIR in study.about:
            study.about[StudyKey.OUTDIR] = str(locate_folder(study.about, storage.path))
    console = Console(highlight=False, markup=False)  # Commands may contain brackets.
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    status = [to_json(each, names) for each in found]
    if as_json:
        print(json.dumps(status if name is None else status[0], indent=2))
    elif name is None:
        console.print(_overview(found))
    else:
        running = [_running_table(status[0]["running"])] if status[0]["running"] else []
        latest = _latest_table(found[0].latest, status[0]["interrupted"])
        console.print(_summary(found[0], status[0]), *running, latest, sep="")


def to_json(study: StudySummary, names: list[str]) -> dict[str, Any]:
    """Return the status of a study as JSON values; the keys are stable.

    Args:
        study: The study.
        names: Names of all studies in its database.
    """
    about = study.about
    interrupted = _interrupted(study)
    alive = [trial for trial in study.of(TrialState.RUNNING) if trial.number not in interrupted]
    running = [_running(trial, about) for trial in alive]
    return {
        "study": study.name,
        "agent": about.get(StudyKey.AGENT),
        "monitor": about.get(StudyKey.MONITOR),
        "done": study.done,
        "total": about.get(StudyKey.N_TRIALS),
        "best": None if study.best is None else {"trial": study.best[0], "value": study.best[1]},
        "split_sizes": about.get(StudyKey.SPLIT_SIZES, {}),
        "constant_answers": comparable_baselines(about),
        "models": {kind: {key: each[key] for key in ("value", "seeds")} for kind, each in _models(about).items()},
        "endings": {key: study.counts.get(state, 0) for state, key in _JSON_KEYS.items()},
        "failures": {reason or "no reason recorded": count for reason, count in study.failures.items()},
        "collapsed": study.collapsed,
        "seconds_a_trial": study.seconds,
        "seconds_left": _seconds_left(study, running),
        "running": running,
        "interrupted": interrupted,
        "tuned_by": _lock_holder(study),
        "started_from": about.get(StudyKey.STARTED_FROM, {}).get("study"),
        "outdir": about.get(StudyKey.OUTDIR),
        "next": _next(study, names, running),
    }


def _interrupted(study: StudySummary) -> list[int]:
    """Return the trials of this machine that Optuna has as running although no process tunes the study."""
    outdir = study.about.get(StudyKey.OUTDIR)
    if outdir is None or not Path(outdir).is_dir() or lock_holder(Path(outdir)) is not None:
        return []
    here = socket.gethostname()
    running = study.of(TrialState.RUNNING)
    return [trial.number for trial in running if trial.attributes.get(TrialKey.WORKER, {}).get("host", here) == here]


def _running(trial: TrialSummary, about: Mapping[str, Any]) -> dict[str, Any]:
    worker = {"since": trial.began} | trial.attributes.get(TrialKey.WORKER, {})
    signs = [worker["since"]] if worker["since"] is not None else []
    if StudyKey.OUTDIR in about:  # on another machine, the file is not there
        with suppress(OSError):
            signs.append(StudyFolder(Path(about[StudyKey.OUTDIR])).trial(trial.number).sign_of_life.stat().st_mtime)
    keys = ("since", "host", "pid", "device", "device_index")
    return {
        "trial": trial.number,
        "epoch": trial.epochs,
        "epochs": about.get(StudyKey.EPOCHS),
        **{key: worker.get(key) for key in keys},
        "sign_of_life": max(signs, default=None),
    }


def _lock_holder(study: StudySummary) -> str | None:
    outdir = study.about.get(StudyKey.OUTDIR)
    return None if outdir is None else lock_holder(Path(outdir))


def _seconds_left(study: StudySummary, running: list[dict[str, Any]]) -> float | None:
    total = study.about.get(StudyKey.N_TRIALS)
    if study.seconds is None or total is None or study.about.get(StudyKey.EXHAUSTED):
        return None
    to_go = max(0, total - study.done)
    eta = TimeEstimator(total, max(study.about.get(StudyKey.WORKERS, 1), len(running[:to_go])), None)
    eta.add(study.seconds * study.done, 0, study.done)
    begun = [time.time() - trial["since"] for trial in running[:to_go] if trial["since"] is not None]
    return eta.left(begun) if to_go else 0.0


def _next(study: StudySummary, names: list[str], running: list[dict[str, Any]]) -> str:
    """Return the next step for the user, in one line."""
    about, name, pid = study.about, shlex.quote(study.name), _lock_holder(study)
    command = _command(about)
    if pid is not None:
        return _hung(study, running) or f"nothing: process {pid} runs the study; to pause it: kill -INT {pid}"
    if StudyKey.AGENT not in about:
        return "nothing: the study was not made by `tune`"
    if study.of(TrialState.RUNNING) and not Path(outdir := about[StudyKey.OUTDIR]).is_dir():
        return f"see the machine with {outdir}: if no trial runs there, run `lightning-hpo reconcile` on it"
    if study.done < about.get(StudyKey.N_TRIALS, 0) and not about.get(StudyKey.EXHAUSTED):
        return _failed_in_a_row(study) + f"resume the study: {command}"
    if StudyKey.REFIT_OF in about:
        return f"print the result: {command}"
    then = f"register --study {name}" if f"{study.name}-refit" in names else f"refit {name}"
    return f"the study is complete: lightning-hpo report {name}, lightning-hpo {then}"


def _hung(study: StudySummary, running: list[dict[str, Any]]) -> str:
    """Return what to do about the trial that has given no sign of life for longest, if that is ten minutes ago."""
    silent = [trial for trial in running if trial["sign_of_life"] is not None and trial["pid"] is not None]
    trial = min(silent, key=lambda trial: float(trial["sign_of_life"]), default=None)
    if trial is None or (seconds := time.time() - trial["sign_of_life"]) < _SILENT_S:
        return ""
    log = StudyFolder(Path(study.about[StudyKey.OUTDIR])).trial(trial["trial"]).log
    return (
        f"trial {trial['trial']} has given no sign of life for {duration(seconds)} ({log}); if it hangs, kill -KILL "
        f"{trial['pid']} restarts it from its checkpoint, as --study.trial_timeout does"
    )


def _command(about: Mapping[str, Any]) -> str:
    """Return the command that resumes a study. Others may write the database, so it is quoted, and only one of ours."""
    try:
        words = shlex.split(str(about.get(StudyKey.COMMAND, "")))
    except ValueError:
        words = []
    if words[:2] in (["lightning-hpo", "tune"], ["lightning-hpo", "refit"]):
        return shlex.join(words)
    return "the same `lightning-hpo tune` command"


def _failed_in_a_row(study: StudySummary) -> str:
    """Return what to look at first where the latest trials have failed: the same command would fail again."""
    ended = [trial for trial in reversed(study.latest) if trial.state.is_finished()]
    failed = list(itertools.takewhile(lambda trial: trial.state == TrialState.FAIL, ended))
    if len(failed) < _FAILED_IN_A_ROW:
        return ""
    log = StudyFolder(Path(study.about[StudyKey.OUTDIR])).trial(failed[0].number).log
    return f"find out why the last {len(failed)} trials have failed ({log}), then "


def _overview(studies: list[StudySummary]) -> Table:
    table = Table("study", "agent", "trials", "best", box=None)
    for study in studies:
        best = "-" if study.best is None else score_text(study.best[1])
        agent = str(study.about.get(StudyKey.AGENT, "-"))
        table.add_row(printable(study.name), printable(agent), str(sum(study.counts.values())), best)
    return table


def _summary(study: StudySummary, status: dict[str, Any]) -> Table:
    about, best = study.about, study.best
    counts = {NAMES[state]: count for state, count in study.counts.items()} | {
        NAMES[TrialState.RUNNING]: len(status["running"]),
        _INTERRUPTED: len(status["interrupted"]),
    }
    outcomes = [f"{counts[name]} {name}" for name in (*NAMES.values(), _INTERRUPTED) if counts.get(name)]
    rows: list[tuple[str, str | None]] = [
        ("study", f"{study.name} ({about.get(StudyKey.AGENT, '-')}, {about.get(StudyKey.MONITOR, '-')})"),
        ("started from", status["started_from"]),
        ("done", f"{study.done} of {about.get(StudyKey.N_TRIALS, '?')}"),
        ("outcomes", ", ".join(outcomes) or "none yet"),
        *[("failed", f"{count}: {reason}") for reason, count in status["failures"].items()],
        ("best", best and f"{score_text(best[1])} in trial {best[0]}"),
        ("collapsed", f"{study.collapsed} predict the same for every example" if study.collapsed else None),
        ("split", sizes_line(sizes) if (sizes := recorded_sizes(about.get(StudyKey.SPLIT_SIZES, {}))) else None),
        *[(f"baseline: {name}", score_text(value)) for name, value in status["constant_answers"].items()],
        *[(kind, _combined_line(each)) for kind, each in status["models"].items()],
        ("time per trial", None if study.seconds is None else duration(study.seconds)),
        ("time left", f"about {duration(status['seconds_left'])}" if status["seconds_left"] else None),
        ("folder", str(about.get(StudyKey.OUTDIR, "-"))),
        ("next", status["next"]),
    ]
    table = Table(box=None, show_header=False)
    for name, text in rows:
        if text is not None:
            table.add_row(printable(name), printable(text))
    return table


def _models(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the soup and the ensemble of a refit that are registered, by these words."""
    models: Mapping[str, Any] = about.get(StudyKey.REFIT_MODELS, {})
    return models


def _combined_line(model: Mapping[str, Any]) -> str:
    return f"{score_text(model['value'])}, seeds {', '.join(map(str, model['seeds']))}"


def _running_table(running: list[dict[str, Any]]) -> Table:
    table = Table("running", "epoch", "for", "on", "process", "last sign of life", box=None)
    for trial in running:
        signed = trial["sign_of_life"]
        gpu = "" if trial["device_index"] is None else f" {trial['device_index']}"
        table.add_row(
            f"trial {trial['trial']}",
            f"{trial['epoch']} of {trial['epochs'] or '?'} done",
            "-" if trial["since"] is None else duration(time.time() - trial["since"]),
            printable(f"{trial['device'] or '-'}{gpu}"),
            printable("-" if trial["pid"] is None else f"{trial['pid']} on {trial['host']}"),
            "-" if signed is None else f"{duration(time.time() - signed)} ago",
        )
    return table


def _latest_table(trials: list[TrialSummary], interrupted: list[int]) -> Table:
    table = Table("trial", "state", "value", "epochs", "time", "note", box=None)
    for trial in trials:
        seconds, value = trial.attributes.get(TrialKey.RUNTIME), trial.value
        collapsed = trial.attributes.get(TrialKey.COLLAPSED)
        table.add_row(
            str(trial.number),
            _INTERRUPTED if trial.number in interrupted else NAMES[trial.state],
            "-" if value is None else score_text(value),
            str(trial.epochs),
            "-" if seconds is None else f"{seconds:.0f}s",
            "collapsed" if collapsed else printable(str(trial.attributes.get(TrialKey.REASON, ""))),
        )
    return table
