"""One process at a time tunes a study."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_hpo.exceptions import InputError

__all__ = ["lock_holder", "lock_study"]


_LOCK = ".lock"


def lock_holder(folder: Path) -> str | None:
    """The number of the process on this machine that holds a study's folder; None if none does.

    Args:
        folder: OUTDIR/STUDY.
    """
    with suppress(OSError), (folder / _LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip()
    return None


@contextmanager
def lock_study(folder: Path) -> Iterator[bool]:
    """Hold a study's folder; the lock ends with the process, however that ends.

    Args:
        folder: OUTDIR/STUDY; made when it is missing.

    Yields:
        Whether the folder has been held before.

    Raises:
        InputError: If the folder cannot be written, or another process holds it.
    """
    path = folder / _LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = path.exists()
        lock = path.open("a+")
    except OSError as error:
        raise InputError(
            f"--study.outdir: cannot write in {folder}: {error.strerror}; name a folder that you may write"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise InputError(
                f"--study.name: {folder.name} is being tuned by process {lock.read().strip()}; "
                "wait for it, or stop it and give one study more --study.workers"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield known
