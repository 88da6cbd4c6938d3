"""MLflow's record of a trial: experiment, run, tags, parameters, metrics an epoch, status.

Every call names its run: nothing here depends on an active run or a current experiment.
"""

import logging
import os
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo import __version__
from lightning_hpo.databases import SQLITE_TIMEOUT_S, DatabaseUrl, masked
from lightning_hpo.exceptions import InputError

# Also before: with its own defaults MLflow tries for minutes to reach a server that is away, and training would wait.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
# Before the import: MLflow decides at import whether it sends usage figures to its makers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

__all__ = ["AWAY", "NEVER", "Run", "Tracker", "check_tracking", "environment_tags", "is_refusal"]

NEVER = float("-inf")
AWAY = (MlflowException, SQLAlchemyError, OSError, InputError)
"""What is raised where MLflow cannot be reached; see `is_refusal`."""

_PORTS = {"http": 80, "https": 443}
_ANSWER_S = 10
_MOST_PARAMS_A_CALL = 100
_LONGEST_VALUE = 5000
_PAGE = 1000
_STUDY_AS_A_WHOLE = "study_as_a_whole"
PARENT = "mlflow.parentRunId"
"""The tag by which MLflow's pages show a run under another one."""
# MLflow's own words for "try again", and for any failure that it did not foresee, an unreachable server among them.
_NO_ANSWER = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_PACKAGES = ("lightning", "optuna", "mlflow", "torch", "transformers", "torchmetrics")

logging.getLogger("mlflow").setLevel(logging.WARNING)


def check_tracking(uri: str) -> None:
    """Refuse a tracking database or server that cannot be used; nothing is written.

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
    """Whether MLflow has answered, and said no; the same again would be refused again."""
    return isinstance(error, MlflowException) and error.error_code not in _NO_ANSWER


@dataclass(frozen=True)
class Run:
    """What is recorded of a run as a whole.

    Args:
        run_id: MLflow's id of it.
        status: RUNNING, SCHEDULED, FINISHED, KILLED or FAILED.
        tags: Its tags.
        params: Its parameters, as text.
        metrics: Its metrics, the last value of each.
    """

    run_id: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class Tracker:
    """MLflow's side of a study; it is opened by its first use.

    Args:
        uri: A database URL or a tracking server. The file of an SQLite URL is made when it is missing.

    Attributes:
        away_since: When it was last found not to answer, on the monotonic clock; NEVER if it answers.
    """

    def __init__(self, uri: str) -> None:
        self.away_since = NEVER
        self._url = DatabaseUrl(uri, "--study.tracking_uri")
        self._artifacts = _artifacts_of(self._url)
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
        """Id of the experiment of that name, made when it is missing.

        Where no server decides, the artifacts stand beside an SQLite file, or below the folder that this is called in.
        """
        found = self.find_experiment(name)
        if found is not None:
            return found
        location = None if self._artifacts is None else str(self._artifacts / name)
        return self.client.create_experiment(name, artifact_location=location)

    def find_experiment(self, name: str) -> str | None:
        """Id of the experiment of that name, if there is one."""
        found = self.client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)

    def start_run(self, experiment_id: str, name: str, tags: Mapping[str, str], time_ms: int | None = None) -> str:
        """Make a run and give its id.

        Args:
            experiment_id: Where to.
            name: Its name.
            tags: Its tags.
            time_ms: When it started, in milliseconds since 1970; by default now.
        """
        run = self.client.create_run(experiment_id, start_time=time_ms, run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def find_run(self, experiment_id: str, tags: Mapping[str, str]) -> str | None:
        """The run of the trial that the tags name, if it was made."""
        wanted = " AND ".join(f"tags.{key} = '{tags[key]}'" for key in ("optuna_study", "optuna_trial"))
        found = self.client.search_runs([experiment_id], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def study_run(self, experiment_id: str, study: str, agent: str, name: str = "study") -> str:
        """The run of a study as a whole, made when it is missing.

        Its tags are others than those of a trial's run, for which nothing may take it.

        Args:
            experiment_id: The study's experiment.
            study: Name of the study.
            agent: Its agent.
            name: Name of the run, if it is made.

        Returns:
            Id of the run.
        """
        found = self.client.search_runs([experiment_id], f"tags.{_STUDY_AS_A_WHOLE} = '{study}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        return self.start_run(experiment_id, name, {_STUDY_AS_A_WHOLE: study, "agent": agent})

    def runs(self, experiment_id: str) -> Iterator[Run]:
        """Every run of an experiment that is not deleted."""
        token = None
        while True:
            page = self.client.search_runs([experiment_id], max_results=_PAGE, page_token=token)
            for run in page:
                yield Run(run.info.run_id, run.info.status, run.data.tags, run.data.params, run.data.metrics)
            token = page.token
            if not token:
                return

    def states(self, experiment_id: str, tags: Sequence[str]) -> Iterator[Run]:
        """Every run of an experiment that is not deleted, with its status and some tags.

        A database is asked for no more than that, and a server for whole runs, which take it much longer.

        Args:
            experiment_id: The experiment.
            tags: Names of the tags.
        """
        from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = self.client._tracking_client.store
        if not isinstance(store, SqlAlchemyStore):
            yield from self.runs(experiment_id)
            return
        run, tag = cast(Any, SqlRun), cast(Any, SqlTag)
        own = (run.experiment_id == int(experiment_id), run.lifecycle_stage == LifecycleStage.ACTIVE)
        kept = sqlalchemy.select(tag.run_uuid, tag.key, tag.value).join(run).where(*own, tag.key.in_(tags))
        of_run: dict[str, dict[str, str]] = {}
        with store.ManagedSessionMaker() as session:
            for run_id, key, value in session.execute(kept):
                of_run.setdefault(run_id, {})[key] = value
            states = session.execute(sqlalchemy.select(run.run_uuid, run.status).where(*own)).all()
        for run_id, status in states:
            yield Run(run_id, status, of_run.get(run_id, {}))

    def tags(self, run_id: str) -> Mapping[str, str]:
        """The tags of a run."""
        tags: Mapping[str, str] = self.client.get_run(run_id).data.tags
        return tags

    def text(self, run_id: str, name: str) -> str:
        """What a text file among the run's artifacts holds."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")

    def delete_run(self, run_id: str) -> None:
        """Put a run into MLflow's bin, from which it can be taken back until `mlflow gc`."""
        self.client.delete_run(run_id)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; the same ones again change nothing."""
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
        """Log a file into a folder of the run's artifacts, in the place of one of that name."""
        self.client.log_artifact(run_id, str(path), folder)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, time_ms: int) -> None:
        """Log metrics of one step in one write; the same ones again change nothing.

        Args:
            run_id: The run.
            metrics: Value of each metric.
            step: The step, an epoch.
            time_ms: When they were measured, in milliseconds since 1970.
        """
        entities = [Metric(key, float(value), time_ms, step) for key, value in metrics.items()]
        self.client.log_batch(run_id, metrics=entities)

    def logged_steps(self, run_id: str, metric: str) -> set[int]:
        """Steps of a metric that the run already holds."""
        return {point.step for point in self.client.get_metric_history(run_id, metric)}

    def delete_models_of(self, run_id: str) -> None:
        """Delete the models that an earlier attempt of a run has logged, unless a registered version stands on one."""
        experiment_id = self.client.get_run(run_id).info.experiment_id
        for model in self.client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
            self.delete_model(str(model.model_uri))

    def has_model(self, uri: str) -> bool:
        """Whether a logged model is there, and has not been deleted."""
        try:
            self.client.get_logged_model(uri.removeprefix("models:/"))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def delete_model(self, uri: str) -> None:
        """Delete a logged model with its files, unless it is gone already or a registered version stands on it."""
        try:
            model = self.client.get_logged_model(uri.removeprefix("models:/"))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return
        versions = self.client.search_model_versions(f"run_id = '{model.source_run_id}'")
        if not versions:
            get_artifact_repository(model.artifact_location).delete_artifacts()  # type: ignore[no-untyped-call]
            self.client.delete_logged_model(model.model_id)

    def set_status(self, run_id: str, status: str, tags: Mapping[str, str], time_ms: int | None = None) -> None:
        """Set the run's status and tags.

        Args:
            run_id: The run.
            status: RUNNING, SCHEDULED, FINISHED, KILLED or FAILED.
            tags: Tags to set with it.
            time_ms: When it ended, if it did, in milliseconds since 1970; by default now.
        """
        if tags:
            self.client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])
        if status in ("RUNNING", "SCHEDULED"):
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status=status, end_time=time_ms)


def _artifacts_of(url: DatabaseUrl) -> Path | None:
    if url.is_server:
        return None
    return (Path.cwd() if url.path is None else url.path.parent) / "mlruns"


def _connect(uri: str) -> None:
    """Ask once: MLflow would try a database that is away for minutes."""
    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def environment_tags() -> dict[str, str]:
    """What made the run: package versions, and the commit of the current folder if it is in a git repository."""
    tags = {f"version.{package}": metadata.version(package) for package in _PACKAGES}
    tags["version.lightning_hpo"] = __version__
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
