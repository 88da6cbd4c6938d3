"""Identity of a study: what a call must have in common with the study that it resumes."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import optuna

from lightning_hpo.config.flags import class_of, flags
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.objective import Objective
from lightning_hpo.study.spec import StudySpec

__all__ = ["evaluation_flags", "identity_problems"]

_TRAINER: Mapping[str, Any] = {
    "trainer.limit_val_batches": 1.0,
    "trainer.overfit_batches": 0.0,
    "trainer.fast_dev_run": False,
    "trainer.val_check_interval": 1.0,
}
"""Flags of the Trainer that change the score of a model, with the values that Lightning uses for none.

`val_check_interval` decides at which steps a trial reports, and the pruner compares trials at the same step. Not listed
are `check_val_every_n_epoch`, which only leaves out steps, and `precision`, which changes the model and not its score.
"""


def evaluation_flags(spec: StudySpec) -> dict[str, Any]:
    """Return the flags that change what is measured, with their values.

    These are flags of the Trainer and those of `declared_measures`. The fingerprint of a data module replaces its
    flags: the same data may be read from another path. A data module with neither a fingerprint nor `MEASURES` may
    change its evaluation data by any flag, so all its flags that are not searched are returned.
    """
    values = flags(spec.config)
    found = {flag: default if values.get(flag) is None else values[flag] for flag, default in _TRAINER.items()}
    names = declared_measures(spec.config, spec.settings.monitor)
    if data := spec.config.get("data"):
        if _has_fingerprint(class_of(data)):
            names = [name for name in names if not name.startswith("data.")]
        elif not hasattr(class_of(data), "MEASURES"):
            names += [flag for flag in values if flag.startswith("data.") and flag not in spec.search_space]
    measured = [flag for flag in values if any(flag == name or flag.startswith(f"{name}.") for name in names)]
    return found | {flag: values[flag] for flag in measured}


def declared_measures(config: Mapping[str, Any], monitor: str) -> list[str]:
    """Return the flags that the model and the data module name in an attribute `MEASURES`, if they have one.

    The attribute holds names of arguments, or names by metric for arguments that change only some metrics.
    """
    found = []
    for section in ("model", "data"):
        measures = getattr(class_of(config[section]), "MEASURES", ()) if config.get(section) else ()
        names = measures.get(monitor, ()) if isinstance(measures, Mapping) else measures
        found += [f"{section}.{name}" for name in names]
    return found


def _has_fingerprint(module: type) -> bool:
    """Return whether a data module declares a fingerprint of its data, as an attribute or by an annotation."""
    declared = any("fingerprint" in inspect.get_annotations(kind) for kind in module.__mro__)
    return declared or hasattr(module, "fingerprint")


def identity_problems(study: optuna.Study, spec: StudySpec, space: SearchSpace) -> list[str]:
    """Return a line for each difference between a stored study and the call that would resume it."""
    name, objective = study.study_name, spec.settings.objective
    if len(study.directions) != 1:
        return [
            f"--study.name: {name} has {len(study.directions)} objectives, and a study of `tune` has one; use another "
            "--study.name"
        ]
    if problems := _kind_problems(study, spec):
        return problems
    problems = [
        f"--study.name: {name} was started with {key} {study.user_attrs[key]}, and now it is {value}; use the same, or "
        "another name"
        for key, value in ((StudyKey.AGENT, spec.agent), (StudyKey.MONITOR, objective.monitor))
        if study.user_attrs.get(key, value) != value
    ]
    if problems:
        return problems
    if Objective.of(study).mode != objective.mode:
        stored = Objective.of(study)
        problems.append(
            f"--study.name: {name} was created to {stored.direction} its metric, and this call would "
            f"{objective.direction} {objective.monitor}; use another --study.name"
        )
    before: Mapping[str, Any] = study.user_attrs.get(StudyKey.EVALUATION, {})
    now = evaluation_flags(spec)
    problems += [
        f"--{flag}: {name} was started with {_shown(before[flag])}, and now it is {_shown(now[flag])}, which changes "
        "what is measured; use the same, or another --study.name"
        for flag in now
        if flag in before and _shown(before[flag]) != _shown(now[flag])
    ]
    return problems + space.mismatches(study)


def _kind_problems(study: optuna.Study, spec: StudySpec) -> list[str]:
    """Refuse a search in the study of a refit, and a refit in that of a search: their names may be the same."""
    name, stored, wanted = (
        study.study_name,
        study.user_attrs.get(StudyKey.REFIT_OF),
        spec.attributes.get(StudyKey.REFIT_OF),
    )
    if stored == wanted or (stored is None and not study.get_trials(deepcopy=False)):
        return []
    if wanted is None:
        return [f"--study.name: {name} is the refit of {stored}, not a search; use another --study.name"]
    return [f"--study.name: {name} is a search, not the refit of {wanted}; run the search under another name"]


def _shown(value: Any) -> str:
    """Return a value as JSON, in which 1 (one batch) and 1.0 (all batches) differ, and a list equals a tuple."""
    return json.dumps(value, sort_keys=True, default=str)
