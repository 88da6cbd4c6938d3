"""MLflow's record of a study: experiment, runs, tags, parameters, metrics, status, models.

Every call names its run. Nothing here depends on an active run or a current experiment.
"""

import logging
import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.databases import SQLITE_TIMEOUT_S, DatabaseUrl, masked
from lightning_hpo.exceptions import InputError

# Before the import: by default, MLflow tries for minutes to reach a server, and training would wait.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow.entities
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

__all__ = ["AWAY", "NEVER", "Run", "Tracker", "check_tracking", "is_refusal"]

NEVER = float("-inf")
AWAY = (MlflowException, SQLAlchemyError, OSError, InputError)
"""Exceptions that are raised if MLflow cannot be reached; see `is_refusal`."""

_PORTS = {"http": 80, "https": 443}
_ANSWER_S = 10
_MOST_PARAMS_A_CALL = 100
_LONGEST_VALUE = 5000
_PAGE = 1000
_STUDY_AS_A_WHOLE = "study_as_a_whole"
PARENT = "mlflow.parentRunId"
"""Tag by which MLflow's web pages show a run under another one."""
# MLflow's error codes for "try again" and for unforeseen failures, such as an unreachable server.
_NO_ANSWER = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")

_Entity = TypeVar("_Entity")

logging.getLogger("mlflow").setLevel(logging.WARNING)


def check_tracking(uri: str) -> None:
    """Check that the tracking database or server can be used, without writing anything.

    Raises:
        InputError: If no server answers, or the file is no SQLite database.
    """
    url = DatabaseUrl(uri, "--study.tracking_uri")
    if url.is_server:
        parts = urlsplit(uri)
        try:
            with socket.create_connection((parts.hostname or "", parts.port or _PORTS[parts.scheme]), _ANSWER_S):
                return
        except (OSError, ValueError) as error:
            raise InputError(f"--study.tracking_uri: no server answers at {url.masked}: {error}") from error
    url.check()


def is_refusal(error: Exception) -> bool:
    """Return whether MLflow has refused a request, so that a retry would be refused as well."""
    return isinstance(error, MlflowException) and error.error_code not in _NO_ANSWER


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
    """

    def __init__(self, uri: str) -> None:
        self.away_since = NEVER
        self._url = DatabaseUrl(uri, "--study.tracking_uri")
        folder = Path.cwd() if self._url.path is None else self._url.path.parent
        self._artifacts = None if self._url.is_server else folder / "mlruns"
        self.uri = uri if self._url.path is None else f"sqlite:///{self._url.path}?timeout={SQLITE_TIMEOUT_S}"

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client.

        Raises:
            InputError: If MLflow cannot be reached.
        """
        try:
            self._url.prepare()
            if self._url.path is None and not self._url.is_server:
                _connect(self.uri)
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        except (OSError, sqlite3.Error, SQLAlchemyError, MlflowException, ImportError) as error:
            reason = masked(str(error)).splitlines()[0]
            raise InputError(f"--study.tracking_uri: cannot open {self._url.masked}: {reason}") from error

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of that name; create the experiment if it is missing.

        Without a server, artifacts are stored next to an SQLite file, or else below the current folder.
        """
        location = None if self._artifacts is None else str(self._artifacts / name)
        return self.find_experiment(name) or self.client.create_experiment(name, artifact_location=location)

    def find_experiment(self, name: str) -> str | None:
        """Return the id of the experiment of that name, or None."""
        found = self.client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)

    def start_run(self, experiment_id: str, name: str, tags: Mapping[str, str], time_ms: int | None = None) -> str:
        """Create a run and return its id. It starts now, or at `time_ms`, in milliseconds since 1970."""
        run = self.client.create_run(experiment_id, start_time=time_ms, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def find_run(self, experiment_id: str, tags: Mapping[str, str]) -> str | None:
        """Return the run of the trial that the tags name, or None."""
        wanted = " AND ".join(f"tags.{key} = '{tags[key]}'" for key in ("optuna_study", "optuna_trial"))
        found = self.client.search_runs([experiment_id], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def study_run(self, experiment_id: str, study: str, agent: str, name: str = "study") -> str:
        """Return the id of the run of a study as a whole; create the run if it is missing.

        Its tags differ from those of a trial's run, so that it is never taken for one.
        """
        found = self.client.search_runs([experiment_id], f"tags.{_STUDY_AS_A_WHOLE} = '{study}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        return self.start_run(experiment_id, name, {_STUDY_AS_A_WHOLE: study, "agent": agent})

    def runs(self, experiment_id: str, status: str | None = None) -> Iterator[Run]:
        """Yield the runs of an experiment, or those with a status. Runs in the trash are left out."""
        wanted = "" if status is None else f"attributes.status = '{status}'"
        token = None
        while True:
            page = self.client.search_runs([experiment_id], wanted, max_results=_PAGE, page_token=token)
            yield from map(_run, page)
            token = page.token
            if not token:
                return

    def run(self, run_id: str) -> Run | None:
        """Return a run, or None if it does not exist or is in the trash."""
        run = _found(self.client.get_run, run_id)
        return None if run is None or run.info.lifecycle_stage != LifecycleStage.ACTIVE else _run(run)

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
        """Log parameters. Logging the same again changes nothing."""
        entities = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in params.items()]
        for first in range(0, len(entities), _MOST_PARAMS_A_CALL):
            self.client.log_batch(run_id, params=entities[first : first + _MOST_PARAMS_A_CALL])

    def log_config(self, run_id: str, config: Mapping[str, Any], text: str) -> None:
        """Log the resolved config, as `config.yaml` for `fit --config` and as `config.json` for programs."""
        self.client.log_text(run_id, text, "config.yaml")
        self.client.log_dict(run_id, dict(config), "config.json")

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Log a text file."""
        self.client.log_text(run_id, text, name)

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Log a file into a folder of the run's artifacts, and replace a file of that name."""
        self.client.log_artifact(run_id, str(path), folder)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, time_ms: int) -> None:
        """Log metrics of one step, an epoch, in one write. Logging the same again changes nothing.

        `time_ms` is the time of the measurement in milliseconds since 1970.
        """
        entities = [Metric(key, float(value), time_ms, step) for key, value in metrics.items()]
        self.client.log_batch(run_id, metrics=entities)

    def logged_steps(self, run_id: str, metric: str) -> set[int]:
        """Return the logged steps of a metric."""
        return {point.step for point in self.client.get_metric_history(run_id, metric)}

    def delete_models_of(self, run_id: str) -> None:
        """Delete the models that a run has logged, except those that a registered version uses."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        for model in self.client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
            self.delete_model(str(model.model_uri))

    def has_model(self, uri: str) -> bool:
        """Return whether a logged model exists."""
        return _found(self.client.get_logged_model, uri.removeprefix("models:/")) is not None

    def delete_model(self, uri: str) -> None:
        """Delete a logged model with its files, unless it does not exist or a registered version uses it."""
        model = _found(self.client.get_logged_model, uri.removeprefix("models:/"))
        if model is not None and not self.client.search_model_versions(f"run_id = '{model.source_run_id}'"):
            get_artifact_repository(model.artifact_location).delete_artifacts()  # type: ignore[no-untyped-call]
            self.client.delete_logged_model(model.model_id)

    def set_status(self, run_id: str, status: str, tags: Mapping[str, str], time_ms: int | None = None) -> None:
        """Set the run's status (see `Run`) and tags. A run ends now, or at `time_ms`, in milliseconds since 1970."""
        if tags:
            self.client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])
        if status in ("RUNNING", "SCHEDULED"):
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status=status, end_time=time_ms)


def _found(get: Callable[[str], _Entity], identifier: str) -> _Entity | None:
    """Return an entity of MLflow, or None if it does not exist."""
    try:
        return get(identifier)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _run(run: mlflow.entities.Run) -> Run:
    return Run(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)


def _connect(uri: str) -> None:
    """Connect once: MLflow would retry for minutes if the database is away."""
    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()
