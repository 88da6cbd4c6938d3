"""Promotion of a registered model: the alias `production` points to the best version on the same data."""

import json
import math
import warnings
from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lightning_hpo.registry.scored_model import ScoredModel
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.objective import Objective, score_text
from lightning_hpo.tracking.errors import cause_of
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["ALIAS", "update_alias"]

ALIAS = "production"
_COLLAPSED = "the model has collapsed: it predicts the same for every input"


def update_alias(model: ScoredModel, tracker: Tracker, version: ModelVersion, *, promote: bool | None = None) -> str:
    """Move the alias to the version of a model, and return a clause that states where the alias points to, and why.

    With `promote=None` it is moved only if no version has it, or if the model beats that version on the same data. A
    collapsed model then never replaces another. False never moves it, and True always does.
    """
    if promote is False:
        return f"{ALIAS} is not moved"
    obstacle = "" if promote else _obstacle(model, tracker, version)
    if obstacle:
        return f"{ALIAS} is not moved: {obstacle}; to move it: {model.command} --promote"
    tracker.client.set_registered_model_alias(version.name, ALIAS, version.version)
    with warnings.catch_warnings():
        # MLflow has deprecated stages. While it has them, models:/NAME/production loads the version, too.
        warnings.simplefilter("ignore", FutureWarning)
        tracker.client.transition_model_version_stage(
            version.name, version.version, "Production", archive_existing_versions=True
        )
    warning = f"; {_COLLAPSED}" if model.collapsed else ""
    return f"{ALIAS}: models:/{version.name}@{ALIAS}{warning}"


def _obstacle(model: ScoredModel, tracker: Tracker, version: ModelVersion) -> str:
    """Return why the alias stays where it is, or an empty text."""
    try:
        current = tracker.client.get_model_version_by_alias(version.name, ALIAS)
    except MlflowException as error:
        # Only a reply that says so means that no version has the alias.
        code = error.error_code
        if code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and "alias" in str(error)):
            return ""
        return f"MLflow {cause_of(error)}, so it is unknown which version has it"
    if current.version == version.version:
        return ""
    if model.collapsed:
        return _COLLAPSED
    # What this version is worth is known here. Others may have changed its tags.
    old, new = current.tags, model.tags
    if any(old.get(key) != new.get(key) for key in ("data_fingerprint", "monitor")):
        return f"version {current.version} was scored on other data or with another metric"
    try:
        flags, earlier = _other_flags(old, new), float(old["value"])
    except (KeyError, ValueError, TypeError, RecursionError):
        flags, earlier = [], math.nan
    if flags:
        return f"version {current.version} was scored with other values of {', '.join(flags)}"
    value = float(new["value"])
    if not math.isfinite(earlier):
        return f"version {current.version} has no score that can be read"
    if not Objective.of(model.study).is_better(value, earlier):
        return f"version {current.version} scores {score_text(earlier)}, and this one {score_text(value)}"
    return ""


def _other_flags(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the flags that change what is measured and differ. Versions of earlier releases have no such tag."""
    before, now = (json.loads(tags.get(StudyKey.EVALUATION, "{}")) for tags in (old, new))
    return [f"--{flag}" for flag in now if flag in before and json.dumps(before[flag]) != json.dumps(now[flag])]
