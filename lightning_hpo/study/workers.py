"""A process a trial: started from a server that has the heavy imports behind it, and watched until it ends."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

__all__ = ["ProcessExit", "Workers", "start_server"]

# Asking CUDA for its devices in the server would keep its children from using them; this asks the driver's library.
_NO_CUDA_BEFORE_FORK = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
_PRELOADED = ["lightning_hpo.preload"]
_LEAVING_S = 30
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class ProcessExit:
    """A process that ended without having said how.

    Args:
        exitcode: Its exit code; minus the signal's number if a signal ended it.
    """

    exitcode: int

    @property
    def reason(self) -> str:
        """What ended it, in words."""
        if self.exitcode < 0:
            return f"killed by {signal.Signals(-self.exitcode).name}"
        return f"its process exited with code {self.exitcode}"


def start_server() -> None:
    """Start the server that processes are forked from, unless it runs; its imports go on in the background."""
    os.environ.update(_NO_CUDA_BEFORE_FORK)
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


class Workers:
    """The processes of a study.

    Args:
        count: How many may run at the same time.
        gpus: Graphics gpus as CUDA_VISIBLE_DEVICES names them: each process sees one of them and no other. Without
            any, processes see what this one sees.
        per_gpu: Processes on a gpu at the same time.
    """

    def __init__(self, count: int, gpus: Sequence[str] = (), per_gpu: int = 1) -> None:
        start_server()
        self.count = min(count, len(gpus) * per_gpu) if gpus else count
        self._gpus, self._per_gpu = tuple(gpus), per_gpu
        self._leases: dict[Any, str] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._running: dict[Any, tuple[ForkServerProcess, Connection]] = {}
        self._leaving: list[ForkServerProcess] = []

    @property
    def free(self) -> int:
        """How many more may be started."""
        return self.count - len(self._running)

    @property
    def running(self) -> list[Any]:
        """The keys of those that run."""
        return list(self._running)

    @property
    def leases(self) -> dict[Any, str]:
        """Which running process has which gpu."""
        return {key: gpu for key, gpu in self._leases.items() if key in self._running}

    def start(self, key: Any, target: Callable[..., None], *arguments: Any, log: Path) -> None:
        """Run `target(*arguments, pipe)` in a process of its own.

        What it sends through the pipe comes out of `wait`. On a gpu it starts once those that leave are gone, with
        their memory; elsewhere they are gone before it needs as much.

        Args:
            key: Name of the process here.
            target: A function that can be imported.
            arguments: For the function.
            log: File at whose end everything is written that the process prints.
        """
        if self._gpus:
            self.reap()
        self._leaving = [process for process in self._leaving if process.is_alive()]
        gpu = self._free_gpu()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_run, args=(target, arguments, theirs, log, gpu))
        process.start()
        theirs.close()
        self._running[key] = (process, ours)
        if gpu is not None:
            self._leases[key] = gpu

    def _free_gpu(self) -> str | None:
        """The least used gpu; of those, the first."""
        if not self._gpus:
            return None
        # A process that has left `_running` is gone, and its gpu's memory is free.
        used = Counter(self.leases.values())
        gpu = min(self._gpus, key=lambda gpu: used[gpu])
        if used[gpu] >= self._per_gpu:
            raise RuntimeError(f"every one of the gpus {', '.join(self._gpus)} has {self._per_gpu} processes")
        return gpu

    def wait(self, timeout: float | None = None) -> list[tuple[Any, Any]]:
        """What the processes have sent, as (key, message); a `ProcessExit` is the last message of one that said no more.

        Args:
            timeout: Seconds to wait for the first message; None waits for ever.
        """
        pipes = {pipe: key for key, (_, pipe) in self._running.items()}
        ready = connection.wait(list(pipes), timeout)
        messages: list[tuple[Any, Any]] = []
        for pipe, key in pipes.items():
            if pipe not in ready:
                continue
            try:
                messages.append((key, pipe.recv()))
            except (EOFError, OSError):  # OSError: it died in the middle of a message
                messages.append((key, self._collect_exit_code(key)))
        return messages

    def call(self, target: Callable[..., None], *arguments: Any, log: Path) -> Any:
        """The one message of `target(*arguments, pipe)`, run in a fresh process.

        Returns:
            The message, or a `ProcessExit`.
        """
        self.start(target, target, *arguments, log=log)
        while True:
            for key, message in self.wait():
                if key is target:
                    if not isinstance(message, ProcessExit):
                        self.join(key)
                    return message

    def answer(self, key: Any, answer: Any) -> None:
        """Send a process the answer to what it has asked; one that has died needs none."""
        with contextlib.suppress(BrokenPipeError):
            self._running[key][1].send(answer)

    def leave(self, key: Any) -> None:
        """Let the process leave, after its last message."""
        process, pipe = self._running.pop(key)
        pipe.close()
        self._leaving.append(process)

    def reap(self) -> None:
        """Wait until those that leave are gone."""
        while self._leaving:
            process = self._leaving.pop()
            process.join(_LEAVING_S)
            if process.is_alive():  # all is said; what hangs now hangs in a library's clean-up
                process.kill()
                process.join()

    def join(self, key: Any) -> None:
        """Wait until the process has left, after its last message."""
        self.leave(key)
        self.reap()

    def ask_to_stop(self) -> None:
        """Ask every process to stop at its next batch."""
        for process, _ in self._running.values():
            process.terminate()

    def kill(self) -> None:
        """End every process now."""
        for process, _ in self._running.values():
            process.kill()

    def _collect_exit_code(self, key: Any) -> ProcessExit:
        process, pipe = self._running.pop(key)
        process.join()
        pipe.close()
        return ProcessExit(process.exitcode or 0)


def _run(target: Callable[..., None], arguments: tuple[Any, ...], pipe: Connection, log: Path, gpu: str | None) -> None:
    if gpu is not None:  # before anything here asks CUDA, which reads it once
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _die_with_parent()
    _print_to(log)
    # Ctrl-C reaches the whole process group; what it means for a process is said by the study.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target(*arguments, pipe)
    except Exception as error:  # noqa: BLE001 - the frames go to the log, not the message, which may quote data
        print("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__, file=sys.stderr)
        sys.exit(1)


def _die_with_parent() -> None:
    # The parent is the server, which ends when the study's process does; so no trial outlives its study. Every child is
    # handed a copy of the pipe end by whose closing the server sees that: open here, it would keep the server up.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _print_to(path: Path) -> None:
    """Send what the process prints, C libraries included, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
