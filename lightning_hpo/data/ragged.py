"""Ragged arrays: rows of different lengths, concatenated in one array in memory or in a file."""

import os
import weakref
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Chunk", "Ragged", "save_durably"]

Chunk = tuple[NDArray[Any], Iterable[int]]
"""Concatenated values of some rows, and the number of values of each row."""


class Ragged:
    """Rows of values; row i is `values[bounds[i]:bounds[i + 1]]`.

    Args:
        values: Values of all rows, shape [values, ...].
        bounds: Start of each row and end of the last, shape [rows + 1].
    """

    def __init__(self, values: "NDArray[Any] | _Stored", bounds: NDArray[np.int64]) -> None:
        self._values, self._bounds = values, bounds

    @classmethod
    def gathered(cls, chunks: Iterable[Chunk], dtype: DTypeLike, shape: tuple[int, ...] = ()) -> "Ragged":
        """Collect rows in memory. `dtype` and `shape` are those of a single value."""
        sizes = array("q")
        parts: list[NDArray[Any]] = [np.empty((0, *shape), dtype)]
        for values, counts in chunks:
            parts.append(values)
            sizes.extend(counts)
        return cls(np.concatenate(parts), _bounds(sizes))

    @staticmethod
    def write(chunks: Iterable[Chunk], values: Path, bounds: Path) -> None:
        """Write rows to two files, with at most one chunk in memory.

        Raises:
            OSError: The files cannot be written.
        """
        sizes = array("q")
        with values.open("wb") as file:
            for part, counts in chunks:
                file.write(np.ascontiguousarray(part).data)
                sizes.extend(counts)
            file.flush()
            os.fsync(file.fileno())
        save_durably(bounds, _bounds(sizes))

    @classmethod
    def stored(cls, values: Path, bounds: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> "Ragged | None":
        """Open the rows of two files, which processes share; return None if they are missing or damaged."""
        try:
            ends = np.load(bounds, mmap_mode="r", allow_pickle=False).view(np.ndarray)
            table = _Stored(values, np.dtype((dtype, shape)))
        except (OSError, ValueError, EOFError):
            return None
        if ends.dtype != np.int64 or ends.ndim != 1 or not len(ends) or ends[-1] * table.dtype.itemsize != table.size:
            return None
        return cls(table, ends)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._values[self._bounds[row] : self._bounds[row + 1]]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Values of each row, shape [rows]."""
        return np.diff(self._bounds)


class _Stored:
    """Values in a file. A process holds only the rows that it reads; processes share the system's page cache.

    The file is read, not memory-mapped: mapped, a random access to a large file loads fifteen further pages, which
    takes three times as long and stays in the process's memory.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self.dtype = path, dtype
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size

    def __getitem__(self, part: slice) -> NDArray[Any]:
        first, stop = part.start * self.dtype.itemsize, part.stop * self.dtype.itemsize
        return np.frombuffer(os.pread(self._file, stop - first, first), self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path, for processes that are not forked."""
        return type(self), (self._path, self.dtype)


def save_durably(path: Path, values: NDArray[Any]) -> None:
    """Save an array. Without the sync, a power cut could leave a file of the right length without its content."""
    with path.open("wb") as file:
        np.save(file, values, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _bounds(sizes: "array[int]") -> NDArray[np.int64]:
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.frombuffer(sizes, np.int64), out=bounds[1:])
    return bounds
