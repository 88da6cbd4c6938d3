"""Checksums that detect whether the files of a logged model have changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DIGEST", "combined_digest", "file_digests", "first_changed_file"]

DIGEST = "sha256"
"""Key of the files' digests in a model's metadata, and of the tag that holds the combined digest."""


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model by its path in the folder, without `MLmodel`, which stores them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "MLmodel")
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def combined_digest(digests: Mapping[str, str]) -> str:
    """Return one digest for the digests of all files."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def first_changed_file(folder: Path, digests: Mapping[str, str], combined: str) -> str | None:
    """Return the first file of a model that differs from the logged one, or None.

    The digests are in the model's own metadata. Their combined digest was stored elsewhere when the model was logged.
    """
    if combined_digest(digests) != combined:
        return "MLmodel"
    found = file_digests(folder)
    return next((name for name in digests if found.get(name) != digests[name]), None)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, DIGEST).hexdigest()
