"""MLflow's record of a study: experiment, runs, tags, parameters, metrics, status.

Every call names its run. Nothing here depends on an active run or a current experiment.
"""

import logging
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import mlflow.entities
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities import PagedList
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.databases import SQLITE_TIMEOUT_S, DatabaseUrl, dumped, masked
from lightning_hpo.exceptions import InputError
from lightning_hpo.tracking.batches import allowed_keys, log_each
from lightning_hpo.tracking.errors import AWAY, ArtifactError, reason_of
from lightning_hpo.tracking.guarded_client import guarded_client

__all__ = ["AWAY", "NEVER", "PAUSE_S", "Run", "Tracker", "deleted_experiment", "find_entity", "quoted"]

NEVER = float("-inf")
PAUSE_S = 20.0
"""Seconds between two attempts to reach MLflow."""
_MOST_PARAMS_A_CALL = 100
_LONGEST_VALUE = 5000
_PAGE = 1000
_MOST_PAGES = 1000
PARENT = "mlflow.parentRunId"
"""Tag by which MLflow's web pages show a run under another one."""

_Entity = TypeVar("_Entity")

logging.getLogger("mlflow").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Run:
    """A run of MLflow, with its parameters as text and the last value of each metric.

    Its status is RUNNING, SCHEDULED, FINISHED, KILLED or FAILED.
    """

    run_id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class Tracker:
    """MLflow's side of a study. The first use opens the database.

    Args:
        uri: A database URL or a tracking server. The file of an SQLite URL is created if it is missing.

    Attributes:
        away_since: Time of the last failed attempt to reach MLflow, on the monotonic clock; NEVER if it answers.
        problem: Why MLflow does not accept entries, as a clause; empty if it does.
        artifact_problem: Why it does not accept artifacts; empty if it does.
        uri: The URI that MLflow is given.
        file: File of an SQLite database, or None.
        artifacts: Folder of the artifacts, or None if a server stores them.
    """

    def __init__(self, uri: str) -> None:
        self.away_since = NEVER
        self.problem = self.artifact_problem = ""
        self._url = DatabaseUrl(uri, "--study.tracking_uri")
        self.file = self._url.path
        self.artifacts = None if self._url.is_server else (self.file.parent if self.file else Path.cwd()) / "mlruns"
        self.uri = uri if self.file is None else f"sqlite:///{self.file}?timeout={SQLITE_TIMEOUT_S}"

    @property
    def is_away(self) -> bool:
        """Whether MLflow could not be reached a moment ago, so that the next attempt has to wait."""
        return time.monotonic() - self.away_since < PAUSE_S

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client.

        Raises:
            InputError: If MLflow cannot be reached.
        """
        try:
            self._url.prepare()
            self._url.create_tables(_mlflow_schema)
            if self.file is None and not self._url.is_server:
                _connect(self.uri)
            return guarded_client(self.uri)
        except (OSError, sqlite3.Error, SQLAlchemyError, MlflowException, ImportError) as error:
            raise InputError(f"--study.tracking_uri: cannot open {self._url.masked}: {reason_of(error)}") from error

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of that name; create the experiment if it is missing.

        Without a server, artifacts are stored next to an SQLite file, or else below the current folder.

        Raises:
            InputError: If the experiment is in MLflow's trash, or its name would be a path to another folder.
        """
        if self.artifacts is not None and "/" in name:
            raise InputError(f"experiment {name}: its name is no folder name, so it has no folder for its artifacts")
        location = None if self.artifacts is None else str(self.artifacts / name)
        return self.find_experiment(name) or self.client.create_experiment(name, artifact_location=location)

    def find_experiment(self, name: str) -> str | None:
        """Return the id of the experiment of that name, or None.

        Raises:
            InputError: If the experiment is in MLflow's trash, so that nothing can be logged to it.
        """
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return None
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise InputError(deleted_experiment(name, found.experiment_id))
        return str(found.experiment_id)

    def start_run(self, experiment_id: str, name: str, tags: Mapping[str, str], time_ms: int | None = None) -> str:
        """Create a run and return its id. It starts now, or at `time_ms`, in milliseconds since 1970."""
        run = self.client.create_run(experiment_id, start_time=time_ms, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def find_run(self, experiment_id: str, tags: Mapping[str, str]) -> str | None:
        """Return the run of the trial that the tags name, or None.

        Args:
            experiment_id: Id of the experiment.
            tags: Tags of the run. One of a version without ids names its study only.
        """
        study = "study_id" if "study_id" in tags else "optuna_study"
        wanted = " AND ".join(f"tags.{key} = {quoted(tags[key])}" for key in (study, "optuna_trial"))
        found = self.client.search_runs([experiment_id], wanted)
        own = [run for run in found if study in run.data.tags and ("study_id" in run.data.tags) == ("study_id" in tags)]
        return str(own[0].info.run_id) if own else None

    def runs(self, experiment_id: str, status: str | None = None) -> Iterator[Run]:
        """Yield the runs of an experiment, or those with a status. Runs in the trash are left out."""
        wanted = "" if status is None else f"attributes.status = '{status}'"
        for page in _pages(partial(self.client.search_runs, [experiment_id], wanted, max_results=_PAGE)):
            yield from map(_run, page)

    def run(self, run_id: str) -> Run | None:
        """Return a run, or None if it does not exist or is in the trash."""
        run = find_entity(self.client.get_run, run_id)
        return None if run is None or run.info.lifecycle_stage != LifecycleStage.ACTIVE else _run(run)

    def has_run(self, run_id: str) -> bool:
        """Return whether a run exists, also in the trash."""
        return find_entity(self.client.get_run, run_id) is not None

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def tags(self, run_id: str) -> Mapping[str, str]:
        """Return the tags of a run."""
        tags: Mapping[str, str] = self.client.get_run(run_id).data.tags
        return tags

    def text(self, run_id: str, name: str) -> str:
        """Return the content of a text file of the run's artifacts."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")

    def delete_run(self, run_id: str) -> None:
        """Move a run to MLflow's trash, from which it can be restored until `mlflow gc`."""
        self.client.delete_run(run_id)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters, under keys that MLflow allows. Logging the same again changes nothing.

        Raises:
            MlflowException: With the refused parameters, after the others have been logged.
        """
        keys = allowed_keys(params)
        entities = [Param(keys[key], str(value)[:_LONGEST_VALUE]) for key, value in params.items()]
        for first in range(0, len(entities), _MOST_PARAMS_A_CALL):
            batch = entities[first : first + _MOST_PARAMS_A_CALL]
            log_each(
                batch, lambda some: self.client.log_batch(run_id, params=some), partial(self.require_active, run_id)
            )

    def log_config(self, run_id: str, config: Mapping[str, Any], text: str) -> None:
        """Log the resolved config, as `config.yaml` for `fit --config` and as `config.json` for programs."""
        with self._artifact_errors(run_id):
            self.client.log_text(run_id, text, "config.yaml")
            self.client.log_dict(run_id, dict(config), "config.json")

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Log a text file."""
        with self._artifact_errors(run_id):
            self.client.log_text(run_id, text, name)

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Log a file into a folder of the run's artifacts, and replace a file of that name."""
        with self._artifact_errors(run_id):
            self.client.log_artifact(run_id, str(path), folder)

    @contextmanager
    def _artifact_errors(self, run_id: str) -> Iterator[None]:
        """Raise an `ArtifactError` with the place of the run's artifacts, if MLflow itself answers."""
        try:
            yield
        except Exception as error:
            # Each kind of artifact store raises exceptions of its own. This request fails if MLflow does not answer.
            place = self.client.get_run(run_id).info.artifact_uri
            raise ArtifactError(f"cannot write artifacts to {masked(str(place))}: {reason_of(error)}") from error

    def require_active(self, run_id: str) -> None:
        """Check that a run accepts entries.

        Raises:
            MlflowException: If the run does not exist or is in MLflow's trash; `is_invalid` is False for it.
        """
        if self.run(run_id) is None:
            raise MlflowException(
                f"run {run_id} or its experiment has been deleted; restore it in MLflow", RESOURCE_DOES_NOT_EXIST
            )

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, time_ms: int) -> None:
        """Log metrics of one step, an epoch, in one write. Logging the same again changes nothing.

        `time_ms` is the time of the measurement in milliseconds since 1970.
        """
        keys = allowed_keys(metrics)
        entities = [Metric(keys[key], float(value), time_ms, step) for key, value in metrics.items()]
        log_each(
            entities, lambda some: self.client.log_batch(run_id, metrics=some), partial(self.require_active, run_id)
        )

    def logged_steps(self, run_id: str, metric: str) -> set[int]:
        """Return the logged steps of a metric."""
        return {point.step for point in self.client.get_metric_history(run_id, allowed_keys([metric])[metric])}

    def set_status(self, run_id: str, status: str, tags: Mapping[str, str], time_ms: int | None = None) -> None:
        """Set the run's status (see `Run`) and tags. A run ends now, or at `time_ms`, in milliseconds since 1970."""
        if tags:
            entities = [RunTag(key, str(value)[:_LONGEST_VALUE]) for key, value in tags.items()]
            self.client.log_batch(run_id, tags=entities)
        if status in ("RUNNING", "SCHEDULED"):
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status=status, end_time=time_ms)


def deleted_experiment(name: str, experiment_id: object) -> str:
    """Return the problem of an experiment in MLflow's trash, in one line."""
    return (
        f"experiment {name} is deleted in MLflow: restore it (`mlflow experiments restore --experiment-id "
        f"{experiment_id}`), or choose another --study.name"
    )


def find_entity(get: Callable[[str], _Entity], identifier: str) -> _Entity | None:
    """Return an entity of MLflow, or None if it does not exist."""
    try:
        return get(identifier)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _pages(search: Callable[..., PagedList[_Entity]]) -> Iterator[PagedList[_Entity]]:
    """Yield the pages of a search."""
    tokens: list[str | None] = [None]
    while True:
        page = search(page_token=tokens[-1])
        yield page
        if not page.token:
            return
        if page.token in tokens:
            raise MlflowException(f"answered with the same page again: {page.token}")
        if len(tokens) == _MOST_PAGES:
            raise MlflowException(f"it sends more than {_MOST_PAGES} pages")
        tokens.append(page.token)


def quoted(text: str) -> str:
    """Return a text as a literal of MLflow's filters, which know no escapes."""
    return f"'{text}'" if "'" not in text else f'"{text}"'


def _run(run: mlflow.entities.Run) -> Run:
    return Run(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)


def _connect(uri: str) -> None:
    """Connect once: MLflow would retry for minutes if the database is away."""
    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _mlflow_schema() -> list[str]:
    """Return the SQL of MLflow's tables, which MLflow itself creates in hundreds of steps."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # takes a second, and only a new file needs it

    store = SqlAlchemyStore("sqlite://", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    try:
        connection: Any = store.engine.raw_connection().driver_connection
        return dumped(connection)
    finally:
        store.engine.dispose()
