"""Everything that is looked at before a study writes anything."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from lightning_hpo.config.agent_cli import class_of
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.hardware.gpus import device_problems, visible_gpus
from lightning_hpo.search.pruners import build_pruner, check_pruner
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.search.warm_start import STARTED_FROM
from lightning_hpo.storage.studies import find_study
from lightning_hpo.study import preflight
from lightning_hpo.study.progress import waiting
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.tracking.tracker import check_tracking

__all__ = ["check_settings", "check_start"]


def check_settings(spec: StudySpec) -> tuple[StudySpec, SearchSpace, optuna.pruners.BasePruner]:
    """Look at the settings, the search space and the pruner; none of it needs the data.

    Returns:
        The study with what it takes over from another one, its search space and its pruner.

    Raises:
        InputError: Everything that is wrong, a line each.
    """
    settings = spec.settings
    problems = settings.problems()
    problems += device_problems(
        settings.devices,
        spec.config["trainer"].get("accelerator"),
        visible_gpus(),
        workers=settings.workers,
        per_device=settings.per_device,
    )
    if _several(spec.config["trainer"].get("devices")):
        problems.append(
            f"--trainer.devices: got {spec.config['trainer']['devices']}; a trial trains on one device, and several "
            "trials at the same time: --study.workers"
        )
    try:
        settings.storage_url.check()
        spec = spec if problems else spec.with_warm_start()
    except InputError as error:
        problems += error.problems
    data = spec.config.get("data")
    measures = [f"data.{name}" for name in getattr(class_of(data), "MEASURES", ())] if data else []
    try:
        space = SearchSpace(spec.search_space, spec.config, measures, spec.warm_start)
    except InputError as error:
        problems += error.problems
    if spec.epochs < 1:
        problems.append("--trainer.max_epochs, --trainer.check_val_every_n_epoch: no epoch would be validated")
        raise InputError(problems)
    pruner = build_pruner(spec.pruner, spec.epochs)
    try:
        check_pruner(pruner, reports=spec.epochs)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return spec, space, pruner


def _several(devices: object) -> bool:
    """Whether the Trainer's `devices` names more than one; the gpu of a trial's process is the only one it sees."""
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    return len(devices) > 1 if isinstance(devices, list) else isinstance(devices, int) and devices > 1


def check_start(spec: StudySpec, space: SearchSpace, workers: Workers, *, known: bool) -> dict[str, Any]:
    """Look at the data, the encoders and both databases, and try one batch in a process of its own.

    Args:
        spec: The study.
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
    log = spec.settings.folder / "preflight.log"
    with waiting("looking at the data, the encoders, and one batch of training and validation"):
        findings: preflight.Findings | ProcessExit = workers.call(
            preflight.run_preflight, dict(spec.config), spec.settings.monitor, corners, methods, log=log
        )
    if isinstance(findings, ProcessExit):
        raise LightningHpoError(f"one batch of training and validation was tried: {findings.reason}; see {log}")
    problems, about = list(findings.problems), _about(spec, findings)
    study = find_study(spec.settings)
    check_tracking(str(spec.settings.tracking_uri))
    if spec.warm_start is not None:
        problems += spec.warm_start.problems(about)
    if study is not None and not problems:
        problems = _mismatches(study, about) + space.mismatches(study)
        problems += [] if known else _elsewhere(study, spec)
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


def _elsewhere(study: optuna.Study, spec: StudySpec) -> list[str]:
    """A study whose trials run, and which was never tuned in this folder, may be tuned by another machine."""
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if not running:
        return []
    return [
        f"--study.name: {running} trials of {study.study_name} are running, and {spec.settings.folder} has never been "
        "used by this machine; go on where they run, or, if nobody runs them, make that folder with an empty file .lock"
    ]


def _about(spec: StudySpec, findings: preflight.Findings) -> dict[str, Any]:
    # First, for what has an agent has begun.
    started_from = {} if spec.warm_start is None else {STARTED_FROM: spec.warm_start.record()}
    return {
        **started_from,
        "agent": spec.agent,
        "monitor": spec.settings.monitor,
        "mode": spec.settings.mode,
        "data_fingerprint": findings.fingerprint,
        "data_counts": dict(findings.counts),
        "constant_answers": dict(findings.constant_answers),
        "precision": findings.precision,
        "n_trials": spec.settings.n_trials,
        "workers": spec.settings.workers,
        "epochs": None if spec.endless else spec.epochs,
        "command": spec.command,
        "outdir": str(spec.settings.folder.absolute()),
    }
