"""Whether a model's files are still those that were logged: a digest of each, kept with the model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DIGEST", "changed_file", "file_digests", "seal"]

DIGEST = "sha256"
"""Name of the digests in a model's metadata, and of the tag with the digest of them all."""


def file_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a model, by its path in the folder; `MLmodel`, which holds them, is left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "MLmodel")
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def seal(digests: Mapping[str, str]) -> str:
    """One digest of all."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def changed_file(folder: Path, digests: Mapping[str, str], sealed: str) -> str | None:
    """The first file that is not as it was logged; None if all are.

    Args:
        folder: The model's.
        digests: What the model itself says of its files.
        sealed: The digest of these that was recorded elsewhere when it was logged.
    """
    if seal(digests) != sealed:
        return "MLmodel"
    found = file_digests(folder)
    return next((name for name in digests if found.get(name) != digests[name]), None)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, DIGEST).hexdigest()
