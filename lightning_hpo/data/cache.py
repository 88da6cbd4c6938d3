"""What takes long to make of a file, kept beside it and shared by every process that uses it."""

import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightning_hpo.data.ragged import Ragged, Stretch

__all__ = ["Cache"]

_FORMAT = 2


class Cache:
    """Arrays that were made of one file, by name.

    Tokens are a post's text in another spelling, so the cache lies in the file's own folder and nowhere else. What is
    kept under a name and a key is always the same, so processes that write at once do no harm.

    Args:
        folder: The folder of the file; None keeps nothing.
        key: Stands for the file's content.
    """

    def __init__(self, folder: Path | None = None, key: str = "") -> None:
        self._folder, self._key = folder, key

    def array(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """An array, made if it is not there.

        Args:
            name: What it is.
            make: Makes it; nothing but the file and the name may decide what it is.
        """
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
        self, name: str, make: Callable[[], Iterable[Stretch]], dtype: DTypeLike, shape: tuple[int, ...] = ()
    ) -> Ragged:
        """Rows of different lengths, made if they are not there.

        Args:
            name: What they are.
            make: Makes them, some at a time; nothing but the file and the name may decide what they are.
            dtype: Of a value.
            shape: Of a value.
        """
        values, bounds = self._path(name, "bin"), self._path(name, "npy")
        if values is None or bounds is None:
            return Ragged.gathered(make(), dtype, shape)
        if found := Ragged.stored(values, bounds, dtype, shape):
            return found
        with suppress(OSError), self._writing() as folder:
            if folder:
                Ragged.write(make(), folder / values.name, folder / bounds.name)
                # The bounds last: who finds them finds the values.
                for path in (values, bounds):
                    (folder / path.name).replace(path)
        # In a read-only folder or on a full disk they are in memory, and the next trial makes them again.
        return Ragged.stored(values, bounds, dtype, shape) or Ragged.gathered(make(), dtype, shape)

    def _path(self, name: str, suffix: str) -> Path | None:
        return self._folder / ".cache" / f"{name}-{_FORMAT}-{self._key}.{suffix}" if self._folder else None

    @contextmanager
    def _writing(self) -> Iterator[Path | None]:
        """A folder for files that are not whole yet, so near that the last step is a mere change of name."""
        if self._folder is None or not _may_write(self._folder):
            yield None
            return
        (self._folder / ".cache").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder / ".cache") as folder:
            yield Path(folder)


def _may_write(folder: Path) -> bool:
    """Whether the folder's own permissions let anybody write; to root the system would not say no."""
    return bool(folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
