"""Cache of arrays computed from a file, next to the file and shared by all processes."""

import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightning_hpo.data.ragged import Chunk, Ragged

__all__ = ["Cache"]

_FORMAT = 2


class Cache:
    """Arrays computed from one file, by name.

    Tokens reveal the text of a post, so the cache is in the file's folder and nowhere else. The same name and key
    always mean the same values, so processes may write at the same time.

    Args:
        folder: The folder of the file; None disables the cache.
        key: Digest of the file's content.
    """

    def __init__(self, folder: Path | None = None, key: str = "") -> None:
        self._folder, self._key = folder, key

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return an array from the cache, or compute and store it. It may depend on the file and the name only."""
        path = self._path(name, "npy")
        with suppress(OSError, ValueError, EOFError):
            if path:
                kept: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
                return kept.view(np.ndarray)
        made = make()
        with suppress(OSError), self._writing() as folder:
            if path and folder:
                np.save(folder / path.name, made, allow_pickle=False)
                (folder / path.name).replace(path)
        return made

    def ragged(
        self, name: str, make: Callable[[], Iterable[Chunk]], dtype: DTypeLike, shape: tuple[int, ...] = ()
    ) -> Ragged:
        """Return rows of different lengths from the cache, or compute and store them.

        The rows may depend on the file and the name only. `dtype` and `shape` are those of a single value.
        """
        values, bounds = self._path(name, "bin"), self._path(name, "npy")
        if values is None or bounds is None:
            return Ragged.gathered(make(), dtype, shape)
        if found := Ragged.stored(values, bounds, dtype, shape):
            return found
        with suppress(OSError), self._writing() as folder:
            if folder:
                Ragged.write(make(), folder / values.name, folder / bounds.name)
                # Bounds last: a process that finds them also finds the values.
                for path in (values, bounds):
                    (folder / path.name).replace(path)
        # If the folder is read-only or the disk is full, the rows stay in memory and each trial computes them again.
        return Ragged.stored(values, bounds, dtype, shape) or Ragged.gathered(make(), dtype, shape)

    def _path(self, name: str, suffix: str) -> Path | None:
        return self._folder / ".cache" / f"{name}-{_FORMAT}-{self._key}.{suffix}" if self._folder else None

    @contextmanager
    def _writing(self) -> Iterator[Path | None]:
        """Yield a temporary folder on the same file system, so that a finished file only needs to be renamed."""
        # By its permissions, since the system itself would allow root everything.
        if self._folder is None or not self._folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            yield None
            return
        (self._folder / ".cache").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder / ".cache") as folder:
            yield Path(folder)
