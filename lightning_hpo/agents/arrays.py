"""Files of NumPy arrays, which are written whole and read without pickle."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.study_folder import read_file, write_whole

__all__ = ["read_arrays", "write_arrays"]

_MOST_BYTES = 2**32
"""Size of the arrays of the largest file that is read. Compressed, zeros take a thousandth of it."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by their names to a file (see `write_whole`)."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_whole(path, lambda file: file.write(content.getvalue()))


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Read arrays by their names; None if the file is missing or damaged."""
    try:
        content = io.BytesIO(read_file(path))
        if sum(file.file_size for file in zipfile.ZipFile(content).infolist()) > _MOST_BYTES:
            return None
        with np.load(content, allow_pickle=False) as found:
            arrays = dict(found)
    # The last three: arrays of another size than the file says, other compression methods, and encryption.
    except (
        OSError,
        ValueError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
        MemoryError,
        NotImplementedError,
        RuntimeError,
    ):
        return None
    return arrays if all(isinstance(each, np.ndarray) for each in arrays.values()) else None
