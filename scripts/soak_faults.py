"""Faults of the world around a study, for `scripts/soak.py`: disk, power, Optuna's database, tracking server."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.power_cut import moments, restore
from scripts.proxy import Proxy

__all__ = ["Disk", "bad_weather", "cut_power", "lock_database", "signal_group"]

_SIZE_MIB = 256
_LIMIT_S = 60.0


class Disk:
    """A small disk in memory, which can be filled. It needs root.

    Args:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"

    @contextlib.contextmanager
    def mounted(self) -> Iterator[bool]:
        """Mount it within the block, and yield whether that was possible."""
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MIB}m", "tmpfs", str(self.folder)]
        possible = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        try:
            yield possible
        finally:
            if possible:
                subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self, process: subprocess.Popen[bytes]) -> None:
        """Fill it until the process has exited, a minute at most."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 2**16)
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:  # the last bytes
            while True:
                file.write(b"\0")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LIMIT_S)
        self._filler.unlink()


def lock_database(path: Path, seconds: float) -> bool:
    """Hold the lock of an SQLite file. Return whether it was there."""
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    return True


def bad_weather(proxy: Proxy, mode: Any, seconds: float) -> None:
    """Let a tracking server behave badly for a while."""
    proxy.mode, proxy.delay_s = mode, 1.0
    time.sleep(seconds)
    proxy.mode = "through"


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the study, the server of its trials and its trials, and wait for the study's exit."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait()


def cut_power(
    process: subprocess.Popen[bytes], root: Path, databases: list[Path], kept: Path, draw: random.Random
) -> bool:
    """Kill all processes of a study, and restore what the disk held at one of the last moments.

    Args:
        process: The study's process, which leads its group and records to `kept`.
        root: Folder of the study.
        databases: Its SQLite files.
        kept: Folder of the recorded moments.
        draw: Draws the moment.

    Returns:
        Whether a moment had been recorded.
    """
    signal_group(process, signal.SIGKILL)
    end = time.monotonic() + _LIMIT_S
    while _is_alive(process.pid) and time.monotonic() < end:
        time.sleep(0.01)
    found = moments(kept)[:-1]  # the last one may be incomplete
    if found:
        restore(draw.choice(found), root, databases, with_names=draw.random() < 0.5)
    shutil.rmtree(kept, ignore_errors=True)
    return bool(found)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
