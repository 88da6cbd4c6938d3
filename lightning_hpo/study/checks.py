"""Checks of a study before anything is written."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import TrialState

from lightning_hpo.config.flags import flags, with_flags
from lightning_hpo.config.trainer import device_problems as trainer_device_problems
from lightning_hpo.databases import DatabaseUrl, registry_problems
from lightning_hpo.exceptions import InputError, LightningHpoError, raise_problems
from lightning_hpo.hardware.gpus import device_problems, visible_gpus
from lightning_hpo.search.bounds import corners
from lightning_hpo.search.pruners import build_pruner, check_pruner
from lightning_hpo.search.rehearsal import rehearse_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.lease import require_free
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.encoder_checks import BY_ENCODER
from lightning_hpo.study.encoder_revisions import NAME, REVISION, resolve_revisions
from lightning_hpo.study.identity import declared_measures, evaluation_flags, identity_problems
from lightning_hpo.study.lines import waiting
from lightning_hpo.study.ownership import folder_problems, place, tracking_problems, tracking_uri_text
from lightning_hpo.study.preflight import Findings, run_preflight
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import StudyFolder
from lightning_hpo.terminal.printable import print_line
from lightning_hpo.tracking.checks import check_tracking

__all__ = ["check_settings", "check_start"]

_WARMUP = "model.schedule.warmup"


def check_settings(
    spec: StudySpec, database: StudyDatabase
) -> tuple[StudySpec, SearchSpace, optuna.pruners.BasePruner]:
    """Check the settings, the search space and the pruner, none of which needs the data.

    Returns:
        The specification with its warm start, the search space and the pruner.

    Raises:
        InputError: All problems, one line each.
    """
    settings = spec.settings
    problems = settings.problems()
    problems += registry_problems(str(settings.tracking_uri)) if settings.register else []
    problems += _device_problems(settings, spec.config["trainer"])
    stored = None
    with _added_to(problems):
        settings.storage_url.check()
        stored = None if problems else database.find(str(settings.name))
        spec = spec if problems else spec.with_warm_start(database)
        spec = spec.with_split_of(stored)
    with _added_to(problems):
        spec = spec.with_mode(stored)
    problems += spec.callback_problems()
    with _added_to(problems):
        measures = declared_measures(spec.config, settings.monitor)
        space = SearchSpace(spec.search_space, spec.config, measures, spec.warm_start)
    if not problems:
        problems += identity_problems(stored, spec, space) if stored is not None else []
        problems += folder_problems(StudyFolder(settings.folder), stored, str(settings.name))
    if not problems:
        with _added_to(problems):
            rehearse_sampler(spec.sampler, settings.seed, space, spec.settings.objective.direction, stored)
    if spec.reports < 1:
        raise InputError([*problems, "--trainer.max_epochs, --trainer.check_val_every_n_epoch: no epoch is validated"])
    pruner = build_pruner(spec.pruner, spec.reports, _longest_warmup(spec))
    with _added_to(problems):
        check_pruner(pruner, reports=spec.reports)
    raise_problems(problems)
    return spec, space, pruner


def _longest_warmup(spec: StudySpec) -> float:
    """Return the largest share of a training that a trial may spend in the warm-up of its learning rate."""
    value = flags(spec.config).get(_WARMUP)
    dimension = spec.search_space.get(_WARMUP)
    shares = [value, *(dimension.get("choices", [dimension.get("high")]) if isinstance(dimension, Mapping) else [])]
    return max((share for share in shares if isinstance(share, int | float)), default=0.0)


@contextmanager
def _added_to(problems: list[str]) -> Iterator[None]:
    """Add the problems of an `InputError` in the block to others, so that all are shown at once."""
    try:
        yield
    except InputError as error:
        problems += error.problems


def _device_problems(settings: StudySettings, trainer: Mapping[str, Any]) -> list[str]:
    gpus, parallel = visible_gpus(), {"workers": settings.workers, "per_device": settings.per_device}
    problems = device_problems(settings.devices, trainer.get("accelerator"), gpus, **parallel)
    return problems + trainer_device_problems(trainer.get("devices"), trainer.get("num_nodes"))


def check_start(
    spec: StudySpec, space: SearchSpace, database: StudyDatabase, workers: Workers, *, used_before: bool
) -> dict[str, Any]:
    """Check the data, the encoders and both databases, with one batch in a new process; return the study's attributes.

    `used_before` is whether this machine has used the study's folder before.

    Raises:
        InputError: All problems, one line each.
        LightningHpoError: If the process crashed.
    """
    study = database.find(str(spec.settings.name))
    if study is not None:
        require_free(study)
    stored = study.user_attrs.get(StudyKey.ENCODER_REVISIONS, {}) if study else {}
    revisions, missing = resolve_revisions(spec.config, space.choices, stored)
    config, outermost = _pinned(spec.config, corners(space.dimensions, BY_ENCODER), revisions)
    findings = _findings(spec, space, workers, config, outermost)
    problems, attributes = list(dict.fromkeys((*missing, *findings.problems))), _attributes(spec, findings)
    attributes[StudyKey.ENCODER_REVISIONS] = {**stored, **revisions}
    databases = (spec.settings.storage_url, DatabaseUrl(str(spec.settings.tracking_uri), "--study.tracking_uri"))
    warnings = [url.warning for url in databases if url.warning is not None]
    first = [] if study is not None or spec.warm_start is not None else space.defaults_outside()
    for notice in [] if problems else (*findings.notices, *first, *warnings):
        print_line(notice, sys.stderr)
    check_tracking(str(spec.settings.tracking_uri), spec.experiment)
    spec.settings.storage_url.check_writable()
    if spec.data_fingerprint not in (None, findings.fingerprint):
        problems.append(
            f"{spec.settings.name}: the study was tuned on data with the fingerprint {spec.data_fingerprint}, and the "
            f"data of its configs now has {findings.fingerprint}; scores on different data cannot be compared"
        )
    if spec.warm_start is not None:
        problems += spec.warm_start.problems(attributes)
    if study is not None and not problems:
        problems = _mismatches(study, attributes) + space.mismatches(study)
        problems += [] if used_before else _elsewhere(study, spec)
        problems += tracking_problems(study, str(spec.settings.tracking_uri))
    raise_problems(problems)
    return attributes


def _findings(
    spec: StudySpec, space: SearchSpace, workers: Workers, config: dict[str, Any], outermost: list[dict[str, Any]]
) -> Findings:
    """Run the preflight in a new process."""
    methods = list(dict.fromkeys(name for choice in space.choices.get("aug.methods", ()) for name in choice))
    folder = StudyFolder(spec.settings.folder)
    log = folder.preflight_log
    with waiting("checking the data and the encoders, and running one batch of training and validation"):
        findings: Findings | ProcessExit = workers.call(
            run_preflight,
            with_flags(config, _values_outside(space, config)),
            spec.settings,
            outermost,
            methods,
            folder.rehearsal,
            log=log,
        )
    reason = findings.reason if isinstance(findings, ProcessExit) else findings.failure
    if isinstance(findings, ProcessExit) or reason:
        raise LightningHpoError(f"the check with one batch of training and validation failed: {reason}; see {log}")
    return findings


def _values_outside(space: SearchSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a searched value for each flag of an encoder whose value in the config no trial has."""
    values = flags(config)
    return {
        flag: dimension.ends[0]
        for flag, dimension in space.dimensions.items()
        if flag in BY_ENCODER
        and not (dimension.when or dimension.at_most)
        and values.get(flag) is not None
        and not dimension.contains(values[flag])
    }


def _pinned(
    config: Mapping[str, Any], outermost: list[dict[str, Any]], revisions: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the config and the corners with the commits of their encoders."""
    if not revisions:
        return dict(config), outermost
    base = flags(config)[NAME]
    pinned = [{**corner, REVISION: revisions.get(corner.get(NAME, base))} if corner else {} for corner in outermost]
    return with_flags(config, {REVISION: revisions.get(base)}), pinned


def _mismatches(study: optuna.Study, attributes: Mapping[str, Any]) -> list[str]:
    return [
        f"--study.name: {study.study_name} was started with {key} {study.user_attrs[key]}, and now it is "
        f"{attributes[key]}; use the same, or another name"
        for key in (StudyKey.AGENT, StudyKey.MONITOR, StudyKey.MODE, StudyKey.DATA_FINGERPRINT)
        if key in study.user_attrs and study.user_attrs[key] != attributes[key]
    ]


def _elsewhere(study: optuna.Study, spec: StudySpec) -> list[str]:
    """Refuse a study with running trials that this machine has never tuned: another machine may be tuning it."""
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if not running:
        return []
    return [
        f"--study.name: {running} trials of {study.study_name} are running, but this machine has never used "
        f"{spec.settings.folder}; run `tune` where they run, or, if no process runs them, create that folder with an "
        "empty file .lock"
    ]


def _attributes(spec: StudySpec, findings: Findings) -> dict[str, Any]:
    # Before the agent: a study with an agent counts as begun.
    started_from = {} if spec.warm_start is None else {StudyKey.STARTED_FROM: asdict(spec.warm_start)}
    return {
        **started_from,
        StudyKey.AGENT: spec.agent,
        StudyKey.MONITOR: spec.settings.monitor,
        StudyKey.MODE: spec.settings.mode,
        StudyKey.DATA_FINGERPRINT: findings.fingerprint,
        StudyKey.EVALUATION: evaluation_flags(spec),
        StudyKey.DATA_COUNTS: dict(findings.counts),
        StudyKey.SPLIT_RULE: flags(spec.config).get("data.split_rule"),
        StudyKey.SPLIT_SIZES: dict(findings.split_sizes),
        StudyKey.BASELINES: dict(findings.baselines),
        StudyKey.PRECISION: findings.precision,
        StudyKey.N_TRIALS: spec.settings.n_trials,
        StudyKey.WORKERS: spec.settings.workers,
        StudyKey.EPOCHS: spec.known_reports,
        StudyKey.COMMAND: spec.command,
        StudyKey.TRACKING_URI: tracking_uri_text(str(spec.settings.tracking_uri)),
        **place(spec.settings.folder, spec.settings.storage_url),
        **spec.attributes,
    }
