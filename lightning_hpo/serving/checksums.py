"""Checksums that detect whether the files of a logged model have changed.

The `MLmodel` file of a model has the digests of all other files in its metadata. So its own digest, the seal of the
model, covers every file. The seal is kept outside the model.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["DIGEST", "MLMODEL", "changed_data", "combined_digest", "file_digests", "first_changed_file", "seal_of"]

DIGEST = "sha256"
"""Key of the files' digests in a model's metadata, and of the tag that holds the seal."""

MLMODEL = "MLmodel"
# MLflow adds it to the downloaded files of a registered version.
_NOT_LOGGED = "registered_model_meta"
_DATA = "data/"


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model by its path in the folder, without `MLmodel`, which stores them."""
    left_out = {folder / MLMODEL, folder / _NOT_LOGGED}
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path not in left_out)
    return {path.relative_to(folder).as_posix(): _digest(path) if path.is_file() else "no file" for path in files}


def seal_of(folder: Path) -> str:
    """Return the seal of a saved model."""
    return _digest(folder / MLMODEL)


def combined_digest(digests: Mapping[str, str]) -> str:
    """Return the seal of a model that version 0.1.0 has logged, given the digests in its metadata."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def first_changed_file(folder: Path, digests: Mapping[str, str], seal: str) -> str | None:
    """Return the first file of a model that was changed, removed or added since the model was logged, or None.

    Args:
        folder: Folder of the model.
        digests: The digests in the model's metadata.
        seal: Its seal, from elsewhere.
    """
    if seal not in (seal_of(folder), combined_digest(digests)):
        return MLMODEL
    return _first_difference(file_digests(folder), digests)


def changed_data(folder: Path, digests: Mapping[str, str]) -> str | None:
    """Return the first changed, removed or added file below `data/`, where the weights and the tokenizer are, or None.

    Python and MLflow change other files of a model: cached bytecode, and requirements.
    """
    found = {f"{_DATA}{name}": digest for name, digest in file_digests(folder / _DATA).items()}
    return _first_difference(found, {name: digest for name, digest in digests.items() if name.startswith(_DATA)})


def _first_difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    return next((name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)), None)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, DIGEST).hexdigest()
