"""Lock of a study's folder: at most one process tunes a study."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from lightning_hpo.exceptions import InputError
from lightning_hpo.study_folder import StudyFolder

__all__ = ["lock_holder", "lock_study"]


def lock_holder(folder: Path) -> str | None:
    """Return the number of the process on this machine that holds the lock of a folder, or None if it is free."""
    with suppress(OSError), StudyFolder(folder).lock.open() as file:
        try:  # shared: two commands that look at the same time do not take each other for the holder
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip()
    return None


@contextmanager
def lock_study(folder: Path) -> Iterator[bool]:
    """Hold the lock of a study's folder. The operating system releases it when the process exits, also when killed.

    Args:
        folder: OUTDIR/STUDY; created if missing.

    Yields:
        Whether the folder has been locked before.

    Raises:
        InputError: If the folder cannot be written, or another process holds the lock.
    """
    path = StudyFolder(folder).lock
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used_before = path.exists()
        file = path.open("a+")
    except OSError as error:
        raise InputError(
            f"--study.outdir: cannot write in {folder}: {error.strerror}; name a folder that you may write"
        ) from error
    with file:
        if not lock_descriptor(file.fileno(), blocking=False):
            file.seek(0)
            raise InputError(
                f"--study.name: process {file.read().strip()} is tuning {folder.name}; wait until it exits, or stop it "
                "and use more --study.workers"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield used_before
