"""Rows of different lengths, one behind the other in one array, in memory or in a file."""

import os
import weakref
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Ragged", "Stretch"]

Stretch = tuple[NDArray[Any], Iterable[int]]
"""The values of some rows, one behind the other, and how many each row has."""


class Ragged:
    """Rows of values; row i is `values[bounds[i]:bounds[i + 1]]`.

    Args:
        values: Of all rows, shape [values, ...].
        bounds: Where each row starts and the last one ends, shape [rows + 1].
    """

    def __init__(self, values: "NDArray[Any] | _Stored", bounds: NDArray[np.int64]) -> None:
        self._values, self._bounds = values, bounds

    @classmethod
    def gathered(cls, stretches: Iterable[Stretch], dtype: DTypeLike, shape: tuple[int, ...] = ()) -> "Ragged":
        """Rows in memory.

        Args:
            stretches: The rows, some at a time.
            dtype: Of a value.
            shape: Of a value.
        """
        sizes = array("q")
        parts: list[NDArray[Any]] = [np.empty((0, *shape), dtype)]
        for values, counts in stretches:
            parts.append(values)
            sizes.extend(counts)
        return cls(np.concatenate(parts), _bounds(sizes))

    @staticmethod
    def write(stretches: Iterable[Stretch], values: Path, bounds: Path) -> None:
        """Write rows to two files, never holding more than a stretch.

        Raises:
            OSError: They cannot be written.
        """
        sizes = array("q")
        with values.open("wb") as file:
            for part, counts in stretches:
                file.write(np.ascontiguousarray(part).data)
                sizes.extend(counts)
            file.flush()
            # Once a corpus; or a power cut could leave a file of the right length with nothing in it.
            os.fsync(file.fileno())
        np.save(bounds, _bounds(sizes), allow_pickle=False)

    @classmethod
    def stored(cls, values: Path, bounds: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> "Ragged | None":
        """The rows of two files, shared by all processes that read them; None where they are not there, or damaged."""
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
    """Values in a file, of which a process holds no more than it has asked for; all share what the system keeps of it.

    They are read, not mapped: of a large file, a page that is read by chance brings fifteen others into the process,
    which takes three times as long and remains.

    Args:
        path: The file.
        dtype: Of a value, with its shape.

    Attributes:
        dtype: The same.
        size: Bytes of the file.
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
        """By its name, for a process that is not forked."""
        return type(self), (self._path, self.dtype)


def _bounds(sizes: "array[int]") -> NDArray[np.int64]:
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.frombuffer(sizes, np.int64), out=bounds[1:])
    return bounds
