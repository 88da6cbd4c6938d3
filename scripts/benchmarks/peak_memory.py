"""The most memory that a process and all that it has started hold together."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["PeakMemory"]

# Seldom, since looking takes some hundredths of a second of what is measured.
_EVERY_S = 5.0


class PeakMemory:
    """Looks at a process and its children now and then, while the context is open.

    Pages that some of them share, such as those of a forked process, are counted once (Linux's PSS). A peak between
    two looks is missed; what a training holds, it holds for long.

    Args:
        process: Its id.

    Attributes:
        mib: The most that was seen; NaN where the system does not tell.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self.mib = math.nan

    def __enter__(self) -> "PeakMemory":
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(_EVERY_S):
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
    """What a file says of a process, which may be gone by now."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""
