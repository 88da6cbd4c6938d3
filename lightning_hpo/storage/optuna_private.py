"""The only module that uses private names of Optuna.

Optuna has no public way to pause a trial, to attach to a running trial from another object, to read one trial by its
number, or to count trials in SQL. The private names are those of Optuna 5 (`optuna>=5,<6` in pyproject.toml). Before
that bound is raised, `tests/storage/test_optuna_private.py` has to pass with the new version.
"""

from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

__all__ = [
    "STUDY_ATTRIBUTES",
    "TRIAL_START",
    "all_trials",
    "engine_of",
    "has_reported",
    "models",
    "pause_trial",
    "reattach",
    "set_trial_user_attr",
    "sqlite_file",
    "storage_of",
    "stored_trial",
    "study_id_of",
    "trial_by_number",
    "trial_id_of",
]

# The mapped class hides this column behind a private attribute.
STUDY_ATTRIBUTES: Final = models.StudyUserAttributeModel.__table__
"""Table of the attributes of studies; study and key are unique."""
TRIAL_START: Final = models.TrialModel.__table__.c.datetime_start
"""Column of the time (UTC) at which a trial was first started."""


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study, to open the same study a second time without a second connection."""
    return study._storage


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials of a study, also if the study is the part of it that `HyperbandPruner` shows to a sampler."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def engine_of(study: optuna.Study) -> sqlalchemy.Engine | None:
    """Return the engine of the database that holds a study, or None for a storage in memory."""
    storage = study._storage
    engine: sqlalchemy.Engine | None = getattr(getattr(storage, "_backend", storage), "engine", None)
    return engine


def study_id_of(study: optuna.Study) -> int:
    """Return the number of a study in its database."""
    return int(study._study_id)


def sqlite_file(study: optuna.Study) -> Path | None:
    """Return the SQLite file that holds a study, or None for another storage."""
    engine = engine_of(study)
    if engine is None or engine.url.get_backend_name() != "sqlite" or engine.url.database in (None, "", ":memory:"):
        return None
    return Path(engine.url.database).absolute()


def trial_id_of(trial: optuna.Trial | FrozenTrial) -> int:
    """Return the id of a trial, which is unique in the storage; the number is unique only in the study."""
    return trial._trial_id


def trial_by_number(study: optuna.Study, number: int) -> FrozenTrial | None:
    """Return one trial without reading the others, or None if the study has no such trial."""
    try:
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    except KeyError:
        return None
    return study._storage.get_trial(trial_id)


def stored_trial(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> FrozenTrial:
    """Return a trial as it is in the storage now."""
    return study._storage.get_trial(trial._trial_id)


def reattach(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> optuna.Trial:
    """Return a new `optuna.Trial` of a running trial.

    Args:
        study: The study whose sampler and pruner the new object uses.
        trial: A running trial of the study.
    """
    return optuna.Trial(study, trial._trial_id)


def pause_trial(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> None:
    """Set a running trial to WAITING. The next `study.ask()` returns it with its number, parameters and reports."""
    study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def set_trial_user_attr(study: optuna.Study, trial: optuna.Trial | FrozenTrial, key: str, value: Any) -> None:
    """Store an attribute of an unfinished trial, also of one that is not running in this process.

    Raises:
        optuna.exceptions.UpdateFinishedTrialError: If the trial is finished.
    """
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def has_reported(trial: optuna.Trial, step: int) -> bool:
    """Return whether a trial has reported a value for this step."""
    return step in trial._cached_frozen_trial.intermediate_values
