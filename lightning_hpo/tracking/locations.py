"""Locations of artifacts: paths of this machine, and addresses of artifact stores."""

import contextlib
import os
import posixpath
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lightning_hpo.databases import SQLITE_TIMEOUT_S, masked

if TYPE_CHECKING:
    from lightning_hpo.tracking.tracker import Tracker

__all__ = ["is_below", "local_path", "location_problem", "relocate"]

_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
_CLOUD = ("s3", "gs", "wasb", "wasbs", "abfss", "r2", "b2", "dbfs")
"""Schemes of stores whose host and credentials are settings of this machine."""
_OF_MLFLOW = ("runs", "models")
"""Schemes that MLflow resolves to another location."""
_PORTS = {"http": 80, "https": 443}
_LONGEST_SHOWN = 100

_ARTIFACT_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database that hold locations of artifacts."""


def local_path(location: str) -> Path | None:
    """Return the folder of a location on this machine, or None if it is on an artifact store."""
    parts = urlsplit(location)
    if parts.scheme == "":
        return Path(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def is_below(location: str, root: str, own_folder: Path | None) -> bool:
    """Return whether a location is below a root. A path of this machine has to be below our own folder as well.

    Without the last rule, a server could name any folder of this machine.

    Args:
        location: Path or address of artifacts.
        root: Path or address of an experiment's artifacts.
        own_folder: Folder in which this project stores artifacts; None if a server stores them.
    """
    folder = local_path(location)
    if folder is not None:
        root_folder = local_path(root)
        return (
            own_folder is not None
            and root_folder is not None
            and _contains(own_folder, root_folder)
            and _contains(root_folder, folder)
        )
    prefix = f"{root.rstrip('/')}/"
    inside = posixpath.normpath(location.removeprefix(prefix))
    return location.startswith(prefix) and not inside.startswith((".", "/"))


def location_problem(location: str, tracking_uri: str) -> str:
    """Return why artifacts at a location that a tracking server names are neither read nor written, or an empty text.

    A server may name itself or a cloud store. It could name any folder of this machine and any other host as well, so
    these have to be in the location that `MLFLOW_DEFAULT_ARTIFACT_ROOT` names here, as it does for the server.

    Args:
        location: Path or address of artifacts.
        tracking_uri: MLflow's database or server. Whoever writes to a database is trusted.
    """
    server, place = urlsplit(tracking_uri), urlsplit(location)
    if server.scheme not in _PORTS or place.scheme in (*_CLOUD, *_OF_MLFLOW):
        return ""
    if place.scheme in (*_PORTS, "mlflow-artifacts") and _host(location, tracking_uri) == _host(tracking_uri):
        return ""
    root = os.environ.get(_ROOT, "")
    if root and _is_in(location, root, tracking_uri):
        return ""
    kind = "a folder of this machine" if local_path(location) is not None else "another host"
    return (
        f"it names {kind} for artifacts, {masked(location)[:_LONGEST_SHOWN]!r}; if it is right to use, set {_ROOT} to "
        "the address of the server's artifacts"
    )


def _host(location: str, tracking_uri: str = "") -> tuple[str | None, int | None]:
    """Return host and port of an address; one without a host is at the tracking server."""
    try:
        parts = urlsplit(location)
        named = parts if parts.netloc else urlsplit(tracking_uri)
        scheme = urlsplit(tracking_uri).scheme if parts.scheme == "mlflow-artifacts" else named.scheme
        return named.hostname, named.port or _PORTS.get(scheme)
    except ValueError:  # the port is not a number
        return None, None


def _is_in(location: str, root: str, tracking_uri: str) -> bool:
    """Return whether a location is a root, or below it."""
    folder, root_folder = local_path(location), local_path(root)
    if folder is None or root_folder is None:
        same_host = _host(location, tracking_uri) == _host(root, tracking_uri)
        return folder is root_folder is None and same_host and urlsplit(location).scheme == urlsplit(root).scheme
    return folder.resolve().is_relative_to(root_folder.resolve())


def relocate(tracker: "Tracker", experiment: str) -> None:
    """Correct the artifact paths of an experiment whose SQLite file was moved or copied with the artifacts.

    MLflow stores absolute paths, and would write to the old place.
    """
    if tracker.file is None or tracker.artifacts is None:
        return
    found = tracker.client.get_experiment_by_name(experiment)
    if found is None:
        return
    old, new = str(found.artifact_location), str(tracker.artifacts / experiment)
    if old != new and old.endswith(f"/mlruns/{experiment}") and Path(new).is_dir():
        _move_locations(tracker.file, old, new)


def _move_locations(database: Path, old: str, new: str) -> None:
    """Replace the beginning of all locations in an SQLite file of MLflow.

    Args:
        database: The file.
        old: Location of an experiment's artifacts before they were moved.
        new: Its location now.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=SQLITE_TIMEOUT_S)) as connection:
        for table, column in _ARTIFACT_PATHS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
        connection.commit()


def _contains(outer: Path, inner: Path) -> bool:
    outer, inner = outer.resolve(), inner.resolve()
    return inner != outer and inner.is_relative_to(outer)
