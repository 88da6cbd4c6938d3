"""Checks of the tracking database or server before a study. They leave nothing behind."""

import contextlib
import logging
import socket
import sqlite3
import tempfile
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.exc import SQLAlchemyError

from lightning_hpo.databases import DatabaseUrl, masked
from lightning_hpo.exceptions import InputError
from lightning_hpo.tracking.errors import AWAY, cause_of, reason_of
from lightning_hpo.tracking.guarded_client import guarded_client
from lightning_hpo.tracking.locations import local_path, location_problem
from lightning_hpo.tracking.tracker import deleted_experiment

__all__ = ["check_tracking"]

_SERVED = "mlflow-artifacts:/"

_FLAG = "--study.tracking_uri"
_PORTS = {"http": 80, "https": 443}
_ANSWER_S = 10
_DEFAULT_EXPERIMENT = "0"
_URL_SIGNS = frozenset("%?")

_log = logging.getLogger(__name__)


def check_tracking(uri: str, experiment: str | None = None) -> None:
    """Check that the tracking database or server can be used.

    Args:
        uri: A database URL or a tracking server.
        experiment: Name of the experiment that a study needs; its artifacts are checked as well. None: a command that
            only reads and repairs.

    Raises:
        InputError: If it does not answer or refuses requests, if the experiment is deleted, if the artifacts cannot be
            written, or if the server has no logged models.
    """
    url = DatabaseUrl(uri, _FLAG)
    if url.is_server:
        _check_server(url, experiment)
        return
    if url.path is not None and not _URL_SIGNS.isdisjoint(str(url.path)):
        raise InputError(
            f"{_FLAG}: the path {url.path} contains % or ?, which MLflow takes for parts of a URL; use another folder"
        )
    url.check()
    if experiment is not None:
        url.check_writable()
        root = _check_stored_experiment(url, experiment)
        folder = Path.cwd() if url.path is None else url.path.parent
        _check_artifacts(root or str(folder / "mlruns"), uri)


def _check_server(url: DatabaseUrl, name: str | None) -> None:
    parts = urlsplit(url.url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or _PORTS[parts.scheme]), _ANSWER_S):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"{_FLAG}: no server answers at {url.masked}: {error}") from error
    client = guarded_client(url.url)
    try:
        default = _experiment(client, _DEFAULT_EXPERIMENT)
        experiment = None if name is None else client.get_experiment_by_name(name)
    except AWAY as error:
        raise InputError(f"{_FLAG}: the server at {url.masked} {cause_of(error)}") from error
    if name is None:
        return
    if experiment is not None and experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InputError(deleted_experiment(name, experiment.experiment_id))
    _check_logged_models(client, url, experiment or default)
    if experiment is not None:
        _check_artifacts(str(experiment.artifact_location), url.url)
    elif default is not None:
        _check_artifacts(_place_of_new(default, url.url), url.url)


def _place_of_new(default: Experiment, tracking_uri: str) -> str:
    """Return where a server stores the artifacts of a new experiment, as far as can be known: where it has the default.

    Its database may have been used without a server before. Then the default experiment has a folder, and a new one has
    the artifacts of the server, if it serves any.
    """
    place = str(default.artifact_location)
    if not location_problem(place, tracking_uri):
        return place
    try:
        get_artifact_repository(_SERVED, tracking_uri).list_artifacts()
    except Exception:  # noqa: BLE001 - whatever the answer is, the server does not serve artifacts
        return place
    return _SERVED


def _experiment(client: MlflowClient, identifier: str) -> Experiment | None:
    try:
        return client.get_experiment(identifier)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _check_logged_models(client: MlflowClient, url: DatabaseUrl, experiment: Experiment | None) -> None:
    """Search for logged models, which MLflow 2 does not have."""
    identifier = _DEFAULT_EXPERIMENT if experiment is None else experiment.experiment_id
    try:
        client.search_logged_models([identifier], max_results=1)
    except AWAY as error:
        raise InputError(
            f"{_FLAG}: the server at {url.masked} has no logged models (it {cause_of(error)}); a study needs a server "
            "of MLflow 3 or newer"
        ) from error


def _check_stored_experiment(url: DatabaseUrl, name: str) -> str | None:
    """Return the artifact location of an experiment in a database, or None if it does not exist. Nothing is written."""
    if url.is_missing:
        return None
    address = url.url if url.path is None else f"sqlite:///file:{url.path}?mode=ro&uri=true"
    columns = "experiment_id, lifecycle_stage, artifact_location"
    try:
        engine = sqlalchemy.create_engine(address)
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("experiments"):
                return None
            query = sqlalchemy.text(f"SELECT {columns} FROM experiments WHERE name = :name")
            row = connection.execute(query, {"name": name}).first()
    except (SQLAlchemyError, ImportError, sqlite3.Error) as error:
        raise InputError(f"{_FLAG}: cannot open {url.masked}: {reason_of(error)}") from error
    engine.dispose()
    if row is None:
        return None
    if row.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InputError(deleted_experiment(name, row.experiment_id))
    return str(row.artifact_location)


def _check_artifacts(root: str, tracking_uri: str) -> None:
    """Write and delete a small artifact below an artifact location."""
    if problem := location_problem(root, tracking_uri):
        raise InputError(f"{_FLAG}: the server at {masked(tracking_uri)} cannot be used: {problem}")
    folder = local_path(root)
    try:
        if folder is not None:
            _try_folder(folder)
            return
        repository = get_artifact_repository(f"{root.rstrip('/')}/check-{uuid.uuid4().hex}", tracking_uri)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "check.txt"
            path.write_text("written by a check before a study, and deleted at once\n", encoding="utf-8")
            repository.log_artifact(str(path))  # type: ignore[no-untyped-call]
    except Exception as error:
        # Each kind of artifact store raises exceptions of its own.
        raise InputError(
            f"{_FLAG}: artifacts cannot be written to {masked(root)}: {reason_of(error)}; "
            "correct its permissions or the server's artifact settings"
        ) from error
    try:
        repository.delete_artifacts()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - see above
        _log.warning("%s cannot be deleted: %s", masked(repository.artifact_uri), cause_of(error))


def _try_folder(folder: Path) -> None:
    """Write in a folder, or where it would be created, a file that has no name or is deleted at once."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    with contextlib.closing(tempfile.TemporaryFile(dir=existing)):
        pass
