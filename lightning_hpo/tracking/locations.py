"""Locations of artifacts: paths of this machine, and addresses of artifact stores."""

import contextlib
import posixpath
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lightning_hpo.databases import SQLITE_TIMEOUT_S
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["is_below", "local_path", "relocate"]

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


def relocate(tracker: Tracker, experiment: str) -> None:
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
