"""Everything that is looked at before a study writes anything."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from lightning_hpo import preflight
from lightning_hpo.config import class_of
from lightning_hpo.databases import check_sqlite, sqlite_path
from lightning_hpo.devices import device_problems, visible_cards
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.job import Job
from lightning_hpo.pruners import build_pruner, check_pruner
from lightning_hpo.screen import waiting
from lightning_hpo.search_space import SearchSpace
from lightning_hpo.stage import STARTED_FROM
from lightning_hpo.study import find_study
from lightning_hpo.tracking import check_tracking
from lightning_hpo.workers import Death, Workers

__all__ = ["check_settings", "check_start"]


def check_settings(job: Job) -> tuple[Job, SearchSpace, optuna.pruners.BasePruner]:
    """Look at the settings, the search space and the pruner; none of it needs the data.

    Returns:
        The study with what it takes over from another one, its search space and its pruner.

    Raises:
        InputError: Everything that is wrong, a line each.
    """
    settings = job.settings
    problems = settings.problems()
    problems += device_problems(
        settings.devices,
        job.config["trainer"].get("accelerator"),
        visible_cards(),
        workers=settings.workers,
        per_device=settings.per_device,
    )
    if _several(job.config["trainer"].get("devices")):
        problems.append(
            f"--trainer.devices: got {job.config['trainer']['devices']}; a trial trains on one device, and several "
            "trials at the same time: --study.workers"
        )
    try:
        _check_storage(str(settings.storage))
        job = job if problems else job.staged()
    except InputError as error:
        problems += error.problems
    data = job.config.get("data")
    measures = [f"data.{name}" for name in getattr(class_of(data), "MEASURES", ())] if data else []
    try:
        space = SearchSpace(job.search_space, job.config, measures, job.stage)
    except InputError as error:
        problems += error.problems
    if job.epochs < 1:
        problems.append("--trainer.max_epochs, --trainer.check_val_every_n_epoch: no epoch would be validated")
        raise InputError(problems)
    pruner = build_pruner(job.pruner, job.epochs)
    try:
        check_pruner(pruner, reports=job.epochs)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return job, space, pruner


def _check_storage(url: str) -> None:
    path = sqlite_path(url, "--study.storage")
    if path is not None:
        check_sqlite(path, "--study.storage")


def _several(devices: object) -> bool:
    """Whether the Trainer's `devices` names more than one; the card of a trial's process is the only one it sees."""
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    return len(devices) > 1 if isinstance(devices, list) else isinstance(devices, int) and devices > 1


def check_start(job: Job, space: SearchSpace, workers: Workers, *, known: bool) -> dict[str, Any]:
    """Look at the data, the encoders and both databases, and try one batch in a process of its own.

    Args:
        job: The study.
        space: Its search space.
        workers: Gives the process.
        known: Whether this machine has used the study's folder before.

    Returns:
        What the study shall say of itself.

    Raises:
        InputError: Everything that stands in the way, a line each.
        LightningHpoError: If the process died.
    """
    corners = space.corners(preflight.BY_ENCODER)
    methods = list(dict.fromkeys(name for choice in space.choices.get("aug.methods", ()) for name in choice))
    log = job.settings.folder / "preflight.log"
    with waiting("looking at the data, the encoders, and one batch of training and validation"):
        findings: preflight.Findings | Death = workers.call(
            preflight.fly, dict(job.config), job.settings.monitor, corners, methods, log=log
        )
    if isinstance(findings, Death):
        raise LightningHpoError(f"one batch of training and validation was tried: {findings.reason}; see {log}")
    problems, about = list(findings.problems), _about(job, findings)
    study = find_study(job.settings)
    check_tracking(str(job.settings.tracking_uri))
    if job.stage is not None:
        problems += job.stage.problems(about)
    if study is not None and not problems:
        problems = _mismatches(study, about) + space.mismatches(study)
        problems += [] if known else _elsewhere(study, job)
    if problems:
        raise InputError(problems)
    return about


def _mismatches(study: optuna.Study, about: Mapping[str, Any]) -> list[str]:
    return [
        f"--study.name: {study.study_name} was started with {key} {study.user_attrs[key]}, and this is {about[key]}; "
        "go on with the same, or give the study another name"
        for key in ("agent", "monitor", "mode", "data_fingerprint", "outdir")
        if key in study.user_attrs and study.user_attrs[key] != about[key]
    ]


def _elsewhere(study: optuna.Study, job: Job) -> list[str]:
    """A study whose trials run, and which was never tuned in this folder, may be tuned by another machine."""
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if not running:
        return []
    return [
        f"--study.name: {running} trials of {study.study_name} are running, and {job.settings.folder} has never been "
        "used by this machine; go on where they run, or, if nobody runs them, make that folder with an empty file .lock"
    ]


def _about(job: Job, findings: preflight.Findings) -> dict[str, Any]:
    # First, for what has an agent has begun.
    started_from = {} if job.stage is None else {STARTED_FROM: job.stage.record()}
    return {
        **started_from,
        "agent": job.agent,
        "monitor": job.settings.monitor,
        "mode": job.settings.mode,
        "data_fingerprint": findings.fingerprint,
        "data_counts": dict(findings.counts),
        "constant_answers": dict(findings.constant_answers),
        "precision": findings.precision,
        "n_trials": job.settings.n_trials,
        "workers": job.settings.workers,
        "epochs": None if job.endless else job.epochs,
        "command": job.command,
        "outdir": str(job.settings.folder.absolute()),
    }
