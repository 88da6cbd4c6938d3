"""Processes of trials: one process a trial, forked by a server that has done the slow imports once."""

import contextlib
import ctypes
import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lightning_hpo.study.fork_server import start_server

__all__ = ["LocalWorkers", "ProcessExit", "Workers"]

_LEAVING_S = 30
_NO_EXIT_CODE = 255  # what multiprocessing gives a process whose server cannot report an exit code
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_PRINT_FRAMES = signal.SIGUSR1


@dataclass(frozen=True)
class ProcessExit:
    """Last message of a process that exited without sending a result.

    Args:
        exitcode: Exit code; minus the signal's number if a signal killed the process.
        with_server: Whether the process was killed because the server that forked it exited.
        killed_for: Why `Workers.end` has killed the process, in words; empty if it has not.
    """

    exitcode: int
    with_server: bool = False
    killed_for: str = ""

    @property
    def reason(self) -> str:
        """Why the process exited, in words."""
        if self.killed_for:
            return self.killed_for
        if self.with_server:
            return "the server of the trial processes has exited"
        if self.exitcode < 0:
            return f"killed by {signal.Signals(-self.exitcode).name}"
        return f"its process exited with code {self.exitcode}"


class Workers(Protocol):
    """Processes that run functions for a study, on this machine or on others.

    A process is named by a key that the caller chooses. A function that runs in it takes a connection as its last
    argument, for its messages and for the replies to them.
    """

    count: int
    """Number of processes that may run at the same time."""

    @property
    def free(self) -> int:
        """Number of processes that may be started now."""

    @property
    def running(self) -> list[Any]:
        """Keys of the running processes."""

    def start(self, key: Any, target: Callable[..., None], *arguments: Any, log: Path) -> None:
        """Run `target(*arguments, pipe)`, which can be imported, in a new process; append its output to `log`."""

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        """Return received messages as (key, message), as soon as there is one, or none after `timeout` seconds.

        `ProcessExit` is the last message of a process that sent no result.
        """

    def reply(self, key: Any, answer: Any) -> None:
        """Send the answer to a request; does nothing if the process has exited."""

    def release(self, key: Any) -> None:
        """Free the worker after the process's last message, without waiting for its exit."""

    def reap(self) -> None:
        """Wait for finished processes to exit."""

    def call(self, target: Callable[..., None], *arguments: Any, log: Path) -> Any:
        """Return the one message of a function that runs in a new process, or a `ProcessExit`."""

    def stop(self) -> None:
        """Ask every process to stop at its next batch."""

    def kill(self) -> None:
        """Kill every process."""

    def print_frames(self, key: Any) -> None:
        """Let a process print to its log what its threads execute; a process that hangs does so, too."""

    def end(self, key: Any, reason: str) -> None:
        """Kill a process. Its `ProcessExit` has the reason, and follows in a limited time even if it cannot exit."""


class _Running(NamedTuple):
    """A running process, the study's end of its pipe, its GPU, and the process that forked it."""

    process: ForkServerProcess
    pipe: Connection
    gpu: str | None
    server: int


class _Queued(NamedTuple):
    """A process that starts when its GPU is free: the process before it is still exiting."""

    target: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path


class _Leaving(NamedTuple):
    """A process whose last message was received, its GPU, and the time at which it is killed if it still runs."""

    process: ForkServerProcess
    gpu: str | None
    deadline: float

    def end(self) -> None:
        """Wait for the process to exit, until the deadline."""
        self.process.join(max(0.0, self.deadline - time.monotonic()))
        if self.process.is_alive():  # its result has been received; a library's clean-up hangs
            self.process.kill()
            self.process.join(_LEAVING_S)
        if self.process.is_alive():  # it hangs in the kernel; the exit of Python must not wait for it
            multiprocessing.process._children.discard(self.process)  # type: ignore[attr-defined]


class LocalWorkers:
    """Processes on this machine.

    Args:
        count: Number of processes that may run at the same time.
        gpus: GPUs as CUDA_VISIBLE_DEVICES names them; each process sees only one of them. Without GPUs, a process sees
            what this one sees.
        per_gpu: Number of processes that share a GPU.
    """

    def __init__(self, count: int, gpus: Sequence[str] = (), per_gpu: int = 1) -> None:
        start_server()
        self.count = min(count, len(gpus) * per_gpu) if gpus else count
        self._gpus, self._per_gpu = tuple(gpus), per_gpu
        self._context = multiprocessing.get_context("forkserver")
        self._running: dict[Any, _Running] = {}
        self._queued: dict[Any, _Queued] = {}
        self._dropped: list[Any] = []
        self._ended: dict[Any, tuple[str, float]] = {}
        """Reason and latest time of the exit of each process that `end` has killed."""
        self._leaving: list[_Leaving] = []

    @property
    def free(self) -> int:
        """Number of processes that may be started now."""
        return self.count - len(self.running)

    @property
    def running(self) -> list[Any]:
        """Keys of the running processes."""
        return [*self._running, *self._queued, *self._dropped]

    @property
    def leases(self) -> dict[Any, str]:
        """GPU of each running process."""
        return {key: running.gpu for key, running in self._running.items() if running.gpu is not None}

    def start(self, key: Any, target: Callable[..., None], *arguments: Any, log: Path) -> None:
        """Run `target(*arguments, pipe)` in a new process, whose output is appended to `log`.

        If a process that is exiting still holds the memory of its GPU, `wait` starts it later.
        """
        if self._gpus and len(self.running) >= len(self._gpus) * self._per_gpu:
            raise RuntimeError(f"each of the GPUs {', '.join(self._gpus)} has {self._per_gpu} processes")
        self._queued[key] = _Queued(target, arguments, log)
        self._start_queued()

    def _start_queued(self) -> None:
        for leaving in self._leaving:
            if self._queued and time.monotonic() >= leaving.deadline:
                leaving.process.kill()
        self._leaving = [leaving for leaving in self._leaving if leaving.process.is_alive()]
        for key in list(self._queued):
            gpu = self._free_gpu()
            if self._gpus and gpu is None:
                return
            target, arguments, log = self._queued.pop(key)
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_run, args=(target, arguments, theirs, log, gpu))
            process.start()
            theirs.close()
            server: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
            self._running[key] = _Running(process, ours, gpu, server)

    def _free_gpu(self) -> str | None:
        """Return the first of the least used GPUs, or None if there is no room on any."""
        # All other processes have exited, and their GPU memory is free.
        used = Counter([*self.leases.values(), *(leaving.gpu for leaving in self._leaving)])
        gpu = min(self._gpus, key=lambda gpu: used[gpu], default=None)
        return gpu if used[gpu] < self._per_gpu else None

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        """Return received messages as (key, message), as soon as there is one, or none after `timeout` seconds."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._start_queued()
            if self._dropped:
                return [(self._dropped.pop(), ProcessExit(-signal.SIGTERM))]
            running, leaving = list(self._running.values()), self._leaving if self._queued else []
            now = time.monotonic()
            left = min([end, *(each.deadline for each in leaving if each.deadline > now)]) - now
            # A child of a process, such as one of its DataLoader, may hold the pipe open after the exit of the process.
            handles = [handle for each in running for handle in (each.pipe, each.process.sentinel)]
            handles += [each.process.sentinel for each in leaving]
            ready = connection.wait(handles, None if left == math.inf else max(0.0, left))
            messages = [(key, message) for key in list(self._running) for message in self._received(key, ready)]
            if messages or time.monotonic() >= end:
                return messages

    def _received(self, key: Any, ready: Sequence[Any]) -> list[Any]:
        """Return the next message of a process, if there is one."""
        process, pipe, *_ = self._running[key]
        exited = process.sentinel in ready
        with contextlib.suppress(EOFError, OSError):  # OSError: it was killed while sending
            if pipe not in ready and not (exited and pipe.poll()):
                return [self._collect_exit_code(key)] if exited or self._is_overdue(key) else []
            return [pipe.recv()]
        return [self._collect_exit_code(key)]

    def call(self, target: Callable[..., None], *arguments: Any, log: Path) -> Any:
        """Return the one message of `target(*arguments, pipe)`, run in a new process, or a `ProcessExit`."""
        self.start(target, target, *arguments, log=log)
        while True:
            for key, message in self.wait():
                if key is target:
                    if not isinstance(message, ProcessExit):
                        self.release(key)
                        self.reap()
                    return message

    def reply(self, key: Any, answer: Any) -> None:
        """Send the answer to a request; do nothing if the process has exited."""
        with contextlib.suppress(BrokenPipeError):
            self._running[key].pipe.send(answer)

    def release(self, key: Any) -> None:
        """Free the worker after the process's last message, without waiting for its exit."""
        ended = self._running.pop(key, None)
        self._ended.pop(key, None)
        if ended is None:  # it has not started
            self._queued.pop(key, None)
            self._dropped = [dropped for dropped in self._dropped if dropped is not key]
            return
        ended.pipe.close()
        self._leaving.append(_Leaving(ended.process, ended.gpu, time.monotonic() + _LEAVING_S))

    def reap(self) -> None:
        """Wait for finished processes to exit."""
        while self._leaving:
            self._leaving.pop().end()

    def stop(self) -> None:
        """Ask every process to stop at its next batch."""
        self._drop_queued()
        for process in self._alive():
            process.terminate()

    def kill(self) -> None:
        """Kill every process."""
        self._drop_queued()
        for process in self._alive():
            process.kill()

    def print_frames(self, key: Any) -> None:
        """Let a process print to its log what its threads execute."""
        self._signal(key, _PRINT_FRAMES)

    def end(self, key: Any, reason: str) -> None:
        """Kill a process, and wait for its exit at most half a minute: it may hang in the kernel."""
        if key in self._running:
            self._ended[key] = (reason, time.monotonic() + _LEAVING_S)
            self._signal(key, signal.SIGKILL)

    def _signal(self, key: Any, number: int) -> None:
        process = self._running[key].process
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    def _is_overdue(self, key: Any) -> bool:
        return key in self._ended and time.monotonic() >= self._ended[key][1]

    def _drop_queued(self) -> None:
        self._dropped += self._queued
        self._queued.clear()

    def _alive(self) -> list[ForkServerProcess]:
        """Return the processes that have not exited. The PID of an exited one may belong to another program."""
        return [running.process for running in self._running.values() if running.process.is_alive()]

    def _collect_exit_code(self, key: Any) -> ProcessExit:
        ended, (reason, latest) = self._running.pop(key), self._ended.pop(key, ("", time.monotonic() + _LEAVING_S))
        ended.pipe.close()
        ended.process.join(max(0.0, latest - time.monotonic()))
        if ended.process.is_alive():
            self._leaving.append(_Leaving(ended.process, ended.gpu, latest))
            return ProcessExit(-signal.SIGKILL, killed_for=reason)
        exitcode = ended.process.exitcode or 0
        with_server = exitcode == _NO_EXIT_CODE and _has_exited(ended.server)
        return ProcessExit(exitcode, with_server, reason)


def _has_exited(server: int) -> bool:
    """Return whether a fork server has exited, or does so within a second: its processes are killed a moment before."""
    if not hasattr(os, "pidfd_open"):  # macOS
        return False
    try:
        handle = os.pidfd_open(server)
    except ProcessLookupError:
        return True
    try:
        # Not `select`, which takes no number above 1,023: a command with many databases has more files open.
        return bool(connection.wait([handle], timeout=1.0))
    finally:
        os.close(handle)


def _run(target: Callable[..., None], arguments: tuple[Any, ...], pipe: Connection, log: Path, gpu: str | None) -> None:
    if gpu is not None:  # before CUDA is initialized, which reads it once
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _die_with_parent()
    _print_to(log)
    faulthandler.register(_PRINT_FRAMES, all_threads=True)  # file, line and function only: no values
    # Ignore signals to the process group: the study process decides when this process stops.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM})  # blocked in the server
    try:
        target(*arguments, pipe)
    except Exception as error:  # noqa: BLE001 - only the frames are logged: the message may quote post text
        print("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__, file=sys.stderr)
        sys.exit(1)


def _die_with_parent() -> None:
    # The parent is the fork server, which exits with the study process, so no trial outlives its study. The server
    # notices that by the closing of a pipe; a child's copy of its end would keep the server running.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    else:
        _watch_study()


def _watch_study() -> None:
    """Kill this process when the study process exits, for systems that send no signal then."""
    study = multiprocessing.parent_process()
    assert study is not None

    def kill_after() -> None:
        study.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill_after, daemon=True).start()


def _print_to(path: Path) -> None:
    """Append the process's output, C libraries included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
