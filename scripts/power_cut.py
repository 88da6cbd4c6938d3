"""Records what is on the disk at each moment of a study, to restore what a power cut would have left.

The model: the content of a file is on the disk once the file was synced, and its name once its folder was synced. What
was not synced is missing, or has its name but only zeros as its content. Databases are taken as durable: SQLite syncs
each transaction.
"""

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["RecordTrial", "Recorder", "moments", "restore"]

_CONTENTS, _NAMES = "contents", "names.json"
_PATH = "/"  # no file has this name


class Recorder:
    """Keeps the state of the disk after each sync and each rename below a folder, in this process.

    Several processes may record the same folder.

    Args:
        root: The folder.
        databases: SQLite files, which are copied as they are at each moment.
        kept: Folder of the recorded moments.
        most: Number of moments to keep, the last ones.
        every: Number of syncs and renames from one moment to the next.
    """

    def __init__(self, root: Path, databases: Sequence[Path], kept: Path, most: int = 10_000, every: int = 1) -> None:
        self._root, self._databases, self._kept, self._most = root, databases, kept, most
        self._every, self._seen = every, 0
        self._synced, self._held = kept / "synced", kept / "held"
        self._fsync, self._replace = os.fsync, os.replace
        if not self._synced.exists():  # what is there already was written long ago
            (self._synced / _CONTENTS).mkdir(parents=True)
            self._held.mkdir()
            for path in [root, *root.rglob("*")] if root.exists() else []:
                self._note(path)

    def install(self) -> None:
        """Record the syncs and renames of this process from now on."""
        os.fsync = self._recorded_fsync  # type: ignore[assignment]
        os.replace = self._recorded_replace  # type: ignore[assignment]

    def remove(self) -> None:
        """Record no longer."""
        os.fsync, os.replace = self._fsync, self._replace

    def _recorded_fsync(self, file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        opened = Path(f"/proc/self/fd/{descriptor}")  # also once another process has renamed or removed it
        if not opened.readlink().is_relative_to(self._root.parent):
            self._fsync(file)
            return
        with self._alone():
            self._fsync(file)
            self._note(opened)
            self._keep()

    def _note(self, path: Path) -> None:
        """Note that a file or a folder is on the disk as it is now."""
        inode = path.stat().st_ino
        if path.is_dir():
            names: dict[str, Any] = {_PATH: str(path.resolve())}
            for each in path.iterdir():
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    names[each.name] = each.stat().st_ino
            (self._synced / f"{inode}.json").write_text(json.dumps(names), encoding="utf-8")
        else:
            target = self._synced / _CONTENTS / str(inode)
            shutil.copyfile(path, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)  # earlier moments hold links to the old content
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                # As long as this link is there, no other file gets the inode.
                os.link(path.resolve(), self._held / str(inode))

    def _recorded_replace(self, source: Any, target: Any) -> None:
        with self._alone():
            self._replace(source, target)
            if Path(target).absolute().is_relative_to(self._root):
                self._keep()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other thread and no other process sync or rename within the block."""
        with (self._kept / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _keep(self) -> None:
        """Store this moment, if it is time to."""
        self._seen += 1
        if self._seen % self._every:
            return
        earlier = moments(self._kept)
        for old in earlier[: len(earlier) + 1 - self._most]:
            shutil.rmtree(old)
        last = int(earlier[-1].name.removeprefix("moment_")) if earlier else -1
        folder = self._kept / f"moment_{last + 1:05}"
        self._forget_removed()
        shutil.copytree(self._synced / _CONTENTS, folder / "synced" / _CONTENTS, copy_function=os.link)
        for names in self._synced.glob("*.json"):
            shutil.copyfile(names, folder / "synced" / names.name)
        (folder / _NAMES).write_text(json.dumps(_names(self._root)), encoding="utf-8")
        for database in self._databases:
            if database.exists():
                _copy(database, folder / database.name)

    def _forget_removed(self) -> None:
        """Forget the names that were synced of a folder whose inode another one has got since."""
        for path in self._root.rglob("*/"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                names = self._synced / f"{path.stat().st_ino}.json"
                if names.exists() and json.loads(names.read_text(encoding="utf-8"))[_PATH] != str(path.resolve()):
                    names.unlink()


class RecordTrial(Callback):
    """Records what the process of a trial writes, as long as the folder of the moments is there.

    Args:
        root: As in `Recorder`.
        databases: As in `Recorder`.
        kept: As in `Recorder`.
    """

    def __init__(self, root: str, databases: list[str], kept: str) -> None:
        self._root, self._databases, self._kept = Path(root), [Path(each) for each in databases], Path(kept)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to record."""
        del trainer, pl_module, stage
        if self._kept.is_dir():
            Recorder(self._root, self._databases, self._kept).install()


def moments(kept: Path) -> list[Path]:
    """Return the recorded moments, the first one first."""
    return sorted(kept.glob("moment_*"))


def restore(moment: Path, root: Path, databases: Sequence[Path], *, with_names: bool) -> None:
    """Replace a folder and its databases by what a power cut at a recorded moment could have left.

    Args:
        moment: The moment.
        root: The recorded folder.
        databases: The recorded databases.
        with_names: Whether names are there that were not synced; their contents are zeros, unless they were synced.
    """
    shutil.rmtree(root, ignore_errors=True)
    for database in databases:
        if (moment / database.name).exists():
            _copy(moment / database.name, database)
        else:
            database.unlink(missing_ok=True)
    synced = moment / "synced"
    now: dict[str, list[Any]] = json.loads((moment / _NAMES).read_text(encoding="utf-8"))

    def fill(folder: Path, inode: int, place: str) -> None:
        """Create what the folder with this inode held."""
        names = synced / f"{inode}.json"
        kept: dict[str, int] = json.loads(names.read_text(encoding="utf-8")) if names.exists() else {}
        kept.pop(_PATH, None)
        paths = {Path(path).name: path for path in now if path != "." and str(Path(path).parent) == place}
        if with_names:
            kept = {name: now[path][0] for name, path in paths.items()}
        for name, own in kept.items():
            found, size = now.get(paths.get(name, ""), (None, 0))
            content = synced / _CONTENTS / str(own)
            if found == own and size is None:
                (folder / name).mkdir()
                fill(folder / name, own, paths[name])
            elif content.exists():
                shutil.copyfile(content, folder / name)
            elif found == own:
                (folder / name).write_bytes(b"\0" * size)

    top = now.get(".")
    if top is not None:
        root.mkdir(parents=True)
        fill(root, top[0], ".")


def _copy(source: Path, target: Path) -> None:
    """Copy the rows of an SQLite file into another one, which other connections may have opened."""
    with (
        contextlib.closing(sqlite3.connect(source, timeout=60)) as read,
        contextlib.closing(sqlite3.connect(target, timeout=60)) as written,
    ):
        read.backup(written)


def _names(root: Path) -> dict[str, list[Any]]:
    """Return inode and size of each file below a folder, by its path; the size of a folder is None."""
    found: dict[str, list[Any]] = {}
    with contextlib.suppress(FileNotFoundError):  # a file that another process has removed meanwhile
        for path in [root, *root.rglob("*")]:
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                found[str(path.relative_to(root))] = [about.st_ino, None if path.is_dir() else about.st_size]
    return found
