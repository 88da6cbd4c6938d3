"""Studies of Optuna's database: create, find, load, rank."""

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.connection import NoStudiesError, open_storage
from lightning_hpo.storage.objective import Objective
from lightning_hpo.storage.settings import StudySettings

__all__ = ["create_study", "find_study", "load_studies", "load_study", "ranked"]


def create_study(settings: StudySettings, sampler: BaseSampler, pruner: BasePruner) -> optuna.Study:
    """Create the study of these settings, or load it if it exists.

    Raises:
        InputError: If the database cannot be opened.
        StorageAwayError: If the database does not accept connections.
    """
    return optuna.create_study(
        study_name=settings.name,
        storage=open_storage(settings.storage_url, wait_s=settings.storage_wait),
        direction=settings.direction,
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )


def find_study(settings: StudySettings) -> optuna.Study | None:
    """Load the study of these settings, or return None if it does not exist. Nothing is written.

    Raises:
        InputError: If the database cannot be opened.
    """
    url = settings.storage_url
    if url.is_missing:
        return None
    try:
        return optuna.load_study(study_name=settings.name, storage=open_storage(url, create=False))
    except (KeyError, NoStudiesError):
        return None


def load_study(name: str, url: DatabaseUrl, *, flag: str = "--study") -> optuna.Study:
    """Load a study to read it.

    Args:
        name: Name of the study.
        url: Optuna's database.
        flag: The flag that named the study, for errors.

    Raises:
        InputError: If the database or the study does not exist.
    """
    storage = open_storage(url, create=False)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise InputError(f"{flag} {name}: no such study in {url.masked}; there are: {names}") from error


def load_studies(name: str | None, url: DatabaseUrl) -> list[optuna.Study]:
    """Load the study of that name, or all studies if the name is None.

    Raises:
        InputError: If the database or the study does not exist.
    """
    if name is not None:
        return [load_study(name, url)]
    storage = open_storage(url, create=False)
    return [optuna.load_study(study_name=each, storage=storage) for each in optuna.get_all_study_names(storage)]


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials of a study with one objective, the best first."""
    objective = Objective.of(study)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (objective.sort_key(trial.value or 0.0), trial.number))
