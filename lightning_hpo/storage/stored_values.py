"""Check of the values in Optuna's database, to which others may have written."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, TrialKey

__all__ = ["require_readable", "stored_problem"]

_NUMBER = (int, float)
_TEXT_OR_NONE = (str, type(None))
_SIZES = {"posts": int, "positives": {"*": int}}
_MODEL = {"trial": int, "offered": [int], "seeds": [int], "steps": [dict], "value": (int, float), "collapsed": bool}
_MODEL |= {"run_id": str, "model_uri": str, "seal": str}
_STUDY: Mapping[str, Any] = {
    **dict.fromkeys((StudyKey.AGENT, StudyKey.MONITOR, StudyKey.MODE, StudyKey.ID, StudyKey.OUTDIR), str),
    **dict.fromkeys((StudyKey.FOLDER, StudyKey.TRACKING_URI, StudyKey.COMMAND, StudyKey.REFIT_OF), str),
    **dict.fromkeys((StudyKey.DATA_FINGERPRINT, StudyKey.SPLIT_RULE, StudyKey.REFIT_OF_ID), _TEXT_OR_NONE),
    StudyKey.EVALUATION: dict,
    StudyKey.STARTED_FROM: dict,
    StudyKey.PRECISION: (str, int, type(None)),
    StudyKey.ENCODER_REVISIONS: {"*": _TEXT_OR_NONE},
    StudyKey.DATA_COUNTS: {"*": int},
    StudyKey.SPLIT_SIZES: {"*": _SIZES},
    StudyKey.BASELINES: {"*": _NUMBER},
    StudyKey.N_TRIALS: int,
    StudyKey.WORKERS: int,
    StudyKey.EPOCHS: (int, type(None)),
    StudyKey.REFIT_CANDIDATES: [int],
    StudyKey.REFIT_TESTED: dict,
    StudyKey.REFIT_MODELS: {"*": _MODEL},
}
_TRIAL: Mapping[str, Any] = {
    **dict.fromkeys((TrialKey.RUN_ID, TrialKey.CONFIG_DIGEST, TrialKey.REASON), str),
    **dict.fromkeys((TrialKey.MODEL_URI, TrialKey.MODEL_SEAL), _TEXT_OR_NONE),
    **dict.fromkeys((TrialKey.CRASHES, TrialKey.EPOCHS_AT_CRASH, TrialKey.HALVINGS, TrialKey.PRUNED_AT_EPOCH), int),
    TrialKey.BEST_EPOCH: (int, type(None)),
    TrialKey.RUNTIME: _NUMBER,
    TrialKey.WORKER: dict,
    TrialKey.LAST_ATTEMPT: dict,
}
"""Type of each attribute: types, `{"*": type of the values}`, `{key: type}`, or `[type of the items]`."""


def require_readable(study: optuna.Study) -> None:
    """Check the attributes and parameters of a study and its trials.

    Raises:
        InputError: If one is not of the type that `tune` stores, or is no text that can be printed.
    """
    try:
        attributes = study.user_attrs
        trials = study.get_trials(deepcopy=False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(_problem(study.study_name, f"a value cannot be read ({type(error).__name__})")) from error
    everything = [(None, attributes, {}), *((each.number, each.user_attrs, each.params) for each in trials)]
    for number, stored, params in everything:
        if problem := stored_problem(study.study_name, stored, params, trial=number):
            raise InputError(problem)


def stored_problem(
    study: str, attributes: Mapping[str, Any], params: Mapping[str, Any] | None = None, *, trial: int | None = None
) -> str:
    """Return the first problem of what is stored with a study, or with one of its trials, or an empty text.

    Args:
        study: Name of the study.
        attributes: Attributes by name.
        params: Parameters of a trial.
        trial: Number of the trial; None for the study itself.
    """
    whose = "" if trial is None else f"trial {trial}, "
    kinds = _STUDY if trial is None else _TRIAL
    for key in (study, *attributes, *(params or {})):
        if not _is_text(key):
            return _problem(study, f"{whose}the name {key!r} is no text")
    for key, value in {**(params or {}), **attributes}.items():
        if not _is_text(value):
            return _problem(study, f"{whose}{key} has a text that cannot be encoded as UTF-8")
    for key, kind in kinds.items():
        if key in attributes and not _has_kind(attributes[key], kind):
            return _problem(study, f"{whose}{key} is {str(attributes[key])[:50]!r}")
    return ""


def _problem(study: str, what: str) -> str:
    return (
        f"{study}: in Optuna's database, {what}, which is not from this program; restore a backup of the database, or "
        "use another study"
    )


def _is_text(value: Any) -> bool:
    """Return whether all texts of a JSON value can be encoded."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _has_kind(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_has_kind(each, kind[0]) for each in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(_has_kind(*pair) for pair in _pairs(value, kind))
    return isinstance(value, kind)


def _pairs(value: Mapping[str, Any], kind: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each value of a mapping with its type. A missing key has the value None."""
    if "*" in kind:
        yield from ((each, kind["*"]) for each in value.values())
    else:
        yield from ((value.get(key), each) for key, each in kind.items())
