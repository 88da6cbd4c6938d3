"""Locks of a study's folder: at most one process tunes a study, and none deletes a model that another registers."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from filelock import lock_descriptor

from lightning_hpo.exceptions import InputError
from lightning_hpo.study_folder import StudyFolder

__all__ = ["lock_holder", "lock_models", "lock_study"]


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

    An `InputError` within the block leaves the folder as it was before, and removes one that was created.

    Args:
        folder: OUTDIR/STUDY; created if missing.

    Yields:
        Whether the folder has been locked before.

    Raises:
        InputError: If the folder cannot be written, or another process holds the lock.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with _open_locked(folder) as (file, used_before):
        file.seek(0)
        earlier = file.read()
        log = StudyFolder(folder).preflight_log
        earlier_log = log.read_bytes() if log.exists() else None
        _replace(file, str(os.getpid()))
        try:
            yield used_before
        except InputError:
            if earlier_log is not None:
                log.write_bytes(earlier_log)
            else:
                log.unlink(missing_ok=True)
            if not used_before:
                _remove_unused(folder, missing)
            raise
        finally:
            _replace(file, earlier)


@contextmanager
def _open_locked(folder: Path) -> Iterator[tuple[TextIO, bool]]:
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
        locked = lock_descriptor(file.fileno(), blocking=False)
        if locked and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            yield file, used_before
            return
        file.seek(0)
        holder = file.read().strip()
    # Another process may have been refused in between, and have removed the folder again.
    who = f"process {holder}" if holder and not locked else "another process"
    raise InputError(
        f"--study.name: {who} is tuning {folder.name}; wait until it exits, or stop it and use more --study.workers"
    )


@contextmanager
def lock_models(folder: StudyFolder, *, wait: bool) -> Iterator[bool]:
    """Lock the models and the weights of a study's trials: to delete some, or to register one.

    Yields:
        Whether they are locked. With `wait`, they are not only if the folder cannot be written or locked.
    """
    with ExitStack() as stack:
        locked = False
        with suppress(OSError):
            file = stack.enter_context(folder.models_lock.open("a"))
            locked = lock_descriptor(file.fileno(), blocking=wait)
        yield locked


def _replace(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _remove_unused(folder: Path, missing: list[Path]) -> None:
    """Remove the lock and the folders that it needed, unless they hold something else by now."""
    lock = StudyFolder(folder).lock
    if [path for path in folder.iterdir() if path != lock]:
        return
    lock.unlink()
    with suppress(OSError):  # a folder that another process uses is not empty
        for path in missing:
            path.rmdir()
