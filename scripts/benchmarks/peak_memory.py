"""Measures the peak memory of a process and its children together."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["PeakMemory"]

# Rarely, because each reading takes some hundredths of a second.
_EVERY_S = 5.0


class PeakMemory:
    """Context manager that samples the memory of a process and its children.

    Shared pages, such as those of a forked process, are counted once (Linux's PSS). A peak between two samples is
    missed, but a training process holds its memory for long.

    Args:
        process: Process ID.

    Attributes:
        mib: Peak in MiB; NaN if the system does not report it.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.mib = math.nan

    def __enter__(self) -> "PeakMemory":
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling."""
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            seen = sum(_held_mib(process) for process in _tree(self._process))
            if seen:
                self.mib = max(seen, seen if math.isnan(self.mib) else self.mib)


def _tree(process: int) -> Iterator[int]:
    yield process
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        for child in _text(listed).split():
            yield from _tree(int(child))


def _held_mib(process: int) -> float:
    lines = _text(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**10


def _text(path: Path) -> str:
    """Read a file of /proc, or return nothing if the process has exited."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
