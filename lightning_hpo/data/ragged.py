"""Rows of different lengths, one behind the other in one array, in memory or mapped from a file."""

import mmap
import os
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
    """Rows of values; row i is `values[bounds[i]:bounds[i + 1]]`, without a copy.

    Args:
        values: Of all rows, shape [values, ...].
        bounds: Where each row starts and the last one ends, shape [rows + 1].
        pages: The file that the values are mapped from, if they are.
    """

    def __init__(self, values: NDArray[Any], bounds: NDArray[np.int64], pages: mmap.mmap | None = None) -> None:
        self._values, self._bounds, self._pages = values, bounds, pages

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
    def mapped(cls, values: Path, bounds: Path, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> "Ragged | None":
        """The rows of two files, shared by all processes that map them; None where they are not there, or damaged."""
        try:
            ends = np.load(bounds, mmap_mode="r", allow_pickle=False).view(np.ndarray)
            with values.open("rb") as file:
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            table = np.frombuffer(pages, dtype).reshape(-1, *shape)
        except (OSError, ValueError, EOFError):
            return None
        if ends.dtype != np.int64 or ends.ndim != 1 or not len(ends) or ends[-1] != len(table):
            return None
        return cls(table, ends, pages)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._values[self._bounds[row] : self._bounds[row + 1]]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped file, which cannot go to a process that is not forked; the values are copied."""
        return {**vars(self), "_pages": None}

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Values of each row, shape [rows]."""
        return np.diff(self._bounds)

    def release(self) -> None:
        """Take what has been read of a mapped file out of this process's memory; it can be read again."""
        if self._pages is not None:
            self._pages.madvise(mmap.MADV_DONTNEED)


def _bounds(sizes: "array[int]") -> NDArray[np.int64]:
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.frombuffer(sizes, np.int64), out=bounds[1:])
    return bounds
