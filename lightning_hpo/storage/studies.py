"""Studies of Optuna's database: create, find, load, rank."""

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.connection import NoStudiesError, one_line_errors, open_storage, wait_for_connections
from lightning_hpo.storage.objective import Objective
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.stored_values import require_readable

__all__ = ["StudyDatabase", "ranked", "require_tuned"]


class StudyDatabase:
    """Optuna's database, which a command opens once, at its first use.

    Args:
        url: The database.
        wait_s: Seconds to wait until the database accepts a connection, from `create` on.

    Raises:
        InputError: From every method, if the database cannot be opened.
    """

    def __init__(self, url: DatabaseUrl, wait_s: float | None = None) -> None:
        self.url, self._wait_s = url, wait_s
        self._opened: RDBStorage | None = None

    def find(self, name: str) -> optuna.Study | None:
        """Return a study, or None if the database or the study does not exist. Nothing is written."""
        if self.url.is_missing:
            return None
        with one_line_errors(self.url):
            try:
                study = optuna.load_study(study_name=name, storage=self._existing())
            except (KeyError, NoStudiesError):
                return None
            require_readable(study)
            return study

    def load(self, name: str, *, flag: str = "--study") -> optuna.Study:
        """Return a study. Nothing is written.

        Raises:
            InputError: If the database or the study does not exist; it names the flag.
        """
        with one_line_errors(self.url):
            try:
                study = optuna.load_study(study_name=name, storage=self._existing())
            except KeyError as error:
                names = ", ".join(self.names()) or "none"
                raise InputError(f"{flag} {name}: no such study in {self.url.masked}; there are: {names}") from error
            require_readable(study)
            return study

    def names(self) -> list[str]:
        """Return the names of all studies."""
        with one_line_errors(self.url):
            return optuna.get_all_study_names(self._existing())

    def create(self, settings: StudySettings, sampler: BaseSampler, pruner: BasePruner) -> optuna.Study:
        """Create a study, and the database if necessary, or load the study if it exists.

        Raises:
            StorageAwayError: From here on, if the database does not accept a connection in time.
        """
        if self._opened is None:
            self._opened = open_storage(self.url, wait_s=self._wait_s)
        else:
            self.url.prepare()  # a database that plain Optuna has created has no write-ahead log
            if self._wait_s is not None:
                wait_for_connections(self._opened.engine, self.url, self._wait_s)
        return optuna.create_study(
            study_name=settings.name,
            storage=self._opened,
            direction=settings.objective.direction,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )

    def _existing(self) -> RDBStorage:
        if self._opened is None:
            self._opened = open_storage(self.url, create=False, sqlite_timeout_s=self._wait_s)
        return self._opened


def require_tuned(study: optuna.Study, missing: str) -> None:
    """Refuse a study without what only `tune` makes.

    Args:
        study: The study.
        missing: What the trials of other studies do not have.

    Raises:
        InputError: If `tune` did not create the study, or if it has several objectives or a direction other than its
            mode: an earlier version accepted a study that plain Optuna had created to minimize.
    """
    if StudyKey.AGENT not in study.user_attrs:
        raise InputError(f"{study.study_name}: the study was not created by `tune`, so its trials have no {missing}")
    objective = Objective.of(study)
    if (mode := study.user_attrs.get(StudyKey.MODE, objective.mode)) != objective.mode:
        raise InputError(
            f"{study.study_name}: the study was created to {objective.direction} its metric, but tuned with "
            f"--study.mode {mode}, so its best trial is not known; tune under another --study.name"
        )


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials of a study with one objective, the best first."""
    objective = Objective.of(study)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (objective.sort_key(trial.value or 0.0), trial.number))
