"""Cache of arrays computed from a file, next to the file and shared by all processes."""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightning_hpo.data.ragged import Chunk, Ragged, save_durably

__all__ = ["CACHE", "Cache", "cached_files"]

_FORMAT = 3
CACHE = (".cache", "lightning_hpo")
"""Folder of the caches, relative to that of the files."""

_TEMPORARY = "tmp-"
_LOCK = "lock"
_FILE = re.compile(rf"[\w-]+-\d+-[0-9a-f]{{32}}\.(bin|npy)|{_LOCK}")
# Version 0.1.0 kept the files of all sources in `.cache` itself, and temporary ones in `.cache/tmp????????`.
_OLD_FILE = re.compile(r"(posts|tokens-\w+|draw-\d+|fingerprint-\w+)-\d-[0-9a-f]{32}\.(bin|npy)")
_OLD_TEMPORARY = re.compile(r"tmp\w{8}")


class Cache:
    """Arrays computed from one file, by name.

    Tokens reveal the text of a post. So the cache is in the file's folder, has the file's permissions, and holds
    nothing of earlier contents of the file. The same name and key always mean the same values, so processes may write
    at the same time.

    Args:
        source: The file; None disables the cache. A cache folder that another user made is not used.
        key: Digest of the file's content.
    """

    def __init__(self, source: Path | None = None, key: str = "") -> None:
        self._source, self._key = source, key
        self._folder = source and source.parent.joinpath(*CACHE, source.name)
        with suppress(OSError):
            if self._folder and self._source and not _is_trusted(self._folder, self._source):
                self._folder = None
        if self._folder:
            self._remove_stale(self._folder)
            self._restrict(self._folder, *_files(self._folder))

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
                save_durably(folder / path.name, made)
                self._restrict(folder / path.name)
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
                    self._restrict(folder / path.name)
                    (folder / path.name).replace(path)
        # If the folder is read-only or the disk is full, the rows stay in memory and each trial computes them again.
        return Ragged.stored(values, bounds, dtype, shape) or Ragged.gathered(make(), dtype, shape)

    def _path(self, name: str, suffix: str) -> Path | None:
        return self._folder / f"{name}-{_FORMAT}-{self._key}.{suffix}" if self._folder else None

    @contextmanager
    def _writing(self) -> Iterator[Path | None]:
        """Yield a temporary folder on the same file system, so that a finished file only needs to be renamed.

        The folder is locked as long as this process runs.
        """
        # By its permissions, since the system itself would allow root everything.
        writable = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
        if self._folder is None or self._source is None or not self._source.parent.stat().st_mode & writable:
            yield None
            return
        for folder in (*reversed(self._folder.parents[: len(CACHE)]), self._folder):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                self._restrict(folder)
        with (
            tempfile.TemporaryDirectory(dir=self._folder, prefix=_TEMPORARY, ignore_cleanup_errors=True) as name,
            Path(name, _LOCK).open("w") as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)

    def _restrict(self, *paths: Path) -> None:
        """Give files and folders of the cache the permissions and the group of the source."""
        with suppress(OSError):
            assert self._source is not None
            about = self._source.stat()
            for path in paths:
                _restrict(path, about)

    def _remove_stale(self, folder: Path) -> None:
        """Remove files of other contents of the source, of sources that are gone, and of processes that were killed."""
        assert self._source is not None
        for path in _files(folder):
            if path.name.startswith(_TEMPORARY):
                _remove_unlocked(path)
            elif f"-{_FORMAT}-{self._key}." not in path.name:
                _remove(path)
        for path in _files(folder.parent):
            if path != folder and not (self._source.parent / path.name).exists():
                _remove(path)
        for path in _files(folder.parent.parent):
            if _OLD_FILE.fullmatch(path.name) or _is_old_temporary(path):
                _remove(path)


def cached_files(folder: Path) -> Iterator[Path]:
    """Yield the files that this package, also version 0.1.0 or a killed process, has left in the caches of a folder."""
    top = folder / CACHE[0]
    for path in _files(top):
        if _OLD_FILE.fullmatch(path.name):
            yield path
        elif _is_old_temporary(path):
            yield from _files(path)
    for source in _files(folder.joinpath(*CACHE)):
        for path in [] if source.is_symlink() else _files(source):
            temporary = path.name.startswith(_TEMPORARY) and not path.is_symlink()
            yield from (each for each in (_files(path) if temporary else [path]) if _FILE.fullmatch(each.name))


def _is_old_temporary(path: Path) -> bool:
    files = _files(path) if _OLD_TEMPORARY.fullmatch(path.name) else []
    return bool(files) and all(_OLD_FILE.fullmatch(file.name) for file in files)


def _is_trusted(folder: Path, source: Path) -> bool:
    """Return whether the folders of a cache, as far as they exist, belong to this user, to root or the file's owner."""
    owners = {os.geteuid(), 0, source.stat().st_uid}
    made = [path for path in (folder, *folder.parents[: len(CACHE)]) if path.exists()]
    return all({path.stat().st_uid, path.lstat().st_uid} <= owners for path in made)


def _restrict(path: Path, source: os.stat_result) -> None:
    mode = source.st_mode & 0o666 | stat.S_IRUSR | stat.S_IWUSR
    now = path.stat()
    if now.st_gid != source.st_gid:
        try:
            os.chown(path, -1, source.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG  # this user is not in the group, which may read the source
    if stat.S_ISDIR(now.st_mode):
        mode |= (mode & 0o444) >> 2  # who may read a folder may enter it
    if stat.S_IMODE(now.st_mode) != mode:
        path.chmod(mode)


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove_unlocked(temporary: Path) -> None:
    """Remove a temporary folder, unless the process that made it still runs."""
    with suppress(OSError):
        with (temporary / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(temporary)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
