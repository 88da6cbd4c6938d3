"""Server that forks the processes of trials: it has done the slow imports once."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any

from lightning_hpo.terminal.library_output import stop_collecting

__all__ = ["keep_cuda_away", "start_server"]

_PRELOADED = ["lightning_hpo.preload"]
_LONGEST_FOLDER = 60
"""A socket's path has at most 104 bytes on macOS and 108 on Linux; multiprocessing adds up to 36 to the folder's."""


def keep_cuda_away() -> None:
    """Let torch ask NVML for GPUs: if the server initializes CUDA, its children cannot use CUDA.

    Call this before the imports of a process that the server is forked from.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"


def start_server(*, forked: bool = False) -> None:
    """Start the server that forks the processes, unless it runs; its imports continue in the background.

    Args:
        forked: Fork the server from this process, whose imports it then has, instead of starting a new Python. Call
            this right after the imports: the process must not have run the user's code, used a GPU or opened a database
            yet. With threads, or on macOS, the server is a new Python even so.
    """
    keep_cuda_away()
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    can_fork = forked and sys.platform == "linux" and threading.active_count() == 1
    # Closing a terminal signals the whole group. The server and the resource tracker inherit the blocked signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with _short_temporary_folder(), _server_as_fork() if can_fork else contextlib.nullcontext():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Let multiprocessing make its socket in /tmp if TMPDIR is too long for a socket's path (cpython issue 132124)."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _server_as_fork() -> Iterator[None]:
    """Let multiprocessing start its server as a fork of this process."""
    resource_tracker.ensure_running()  # which is a new Python
    before = util.spawnv_passfds
    util.spawnv_passfds = _fork
    try:
        yield
    finally:
        util.spawnv_passfds = before


def _fork(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
    """Run `python -c PROGRAM` in a fork of this process. Has the arguments of `multiprocessing.util.spawnv_passfds`."""
    del path
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or trial processes would write it, too
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        pid = os.fork()  # since 3.12, Python warns of the idle threads of OpenBLAS, which start with the imports
    if pid:
        return pid
    code = 1
    try:
        _forget_parent(passfds)
        exec(args[-1], {})
    except SystemExit:
        code = 0
    except Exception:  # noqa: BLE001 - as a new Python would
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _forget_parent(passfds: Sequence[int]) -> None:
    """Make a fork of the study process like a new one, except for its imports."""
    # The server's life depends on a pipe that must be open in the study process only.
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in passfds:
            with contextlib.suppress(OSError):  # the list's own
                os.close(descriptor)
    for state in (forkserver._forkserver, resource_tracker._resource_tracker):
        type(state).__init__(state)  # a lock of the parent is held at this moment
    stop_collecting()
    sys.stderr = sys.__stderr__
