"""Output of libraries: kept off the terminal, and written to the log of a command that has one.

The lines of a command are its own. Warnings and log records of installed packages go to a file; those of the user's own
modules are shown.
"""

import logging
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lightning_hpo.terminal.printable import print_line

__all__ = ["LibraryOutput", "collect_library_output", "stop_collecting", "take_over_loggers", "write_library_output"]

_PACKAGE = Path(__file__).resolve().parents[1]
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = {"site-packages", "dist-packages"}


class LibraryOutput(logging.Handler):
    """Collects warnings and log records of installed packages, and writes them to a file as soon as there is one.

    Lines of this package, such as the counts of a data module, and of the user's own modules are shown on stderr.

    Attributes:
        warnings: Number of collected warnings and errors.
        path: The file, if there is one.
        keeps_own_lines: Whether the lines of this package are written to the file as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.warnings = 0
        self.path: Path | None = None
        self.keeps_own_lines = False
        self._waiting: list[str] = []
        self._taken_over: list[tuple[logging.Logger, list[logging.Handler], bool]] = []
        self._before = warnings.showwarning, logging.NOTSET

    def start(self) -> None:
        """Start collecting."""
        logging.root.addHandler(self)
        own = logging.getLogger(_PACKAGE.name)
        self._before = warnings.showwarning, own.level
        warnings.showwarning = self.show_warning
        own.setLevel(logging.INFO)

    def stop(self) -> None:
        """Undo `start`."""
        logging.root.removeHandler(self)
        warnings.showwarning, level = self._before
        logging.getLogger(_PACKAGE.name).setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record of this package or of the user's modules; collect the others."""
        try:
            if record.name.partition(".")[0] == _PACKAGE.name:
                _show(record.getMessage())
                if self.keeps_own_lines:
                    self._append(record.getMessage())
                return
            line = f"{record.levelname} {record.name}: {record.getMessage()}"
            if _is_installed(record.pathname):
                self._collect(line, record.levelno)
            else:
                _show(line)
        except Exception:  # noqa: BLE001 - as in every handler of `logging`
            self.handleError(record)

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Replace `warnings.showwarning`: show what the user's own code is warned of, and collect the rest."""
        del file, line
        text = f"{filename}:{lineno}: {category.__name__}: {message}"
        if _is_installed(filename):
            self._collect(text, logging.WARNING)
        else:
            _show(text)

    def write_to(self, path: Path) -> None:
        """Append what was collected, and what will be, to a file."""
        self.path = path
        waiting, self._waiting = self._waiting, []
        for line in waiting:
            self._append(line)

    def take_over(self) -> None:
        """Take over the loggers of installed packages that write to the terminal; call this after their import."""
        for name, logger in logging.root.manager.loggerDict.items():
            if not isinstance(logger, logging.Logger):
                continue
            module = sys.modules.get(name.partition(".")[0])
            others = [handler for handler in logger.handlers if type(handler) is not logging.StreamHandler]
            if len(others) < len(logger.handlers) and _is_installed(getattr(module, "__file__", None) or ""):
                self._taken_over.append((logger, logger.handlers, logger.propagate))
                logger.handlers, logger.propagate = others, True

    def give_back(self) -> None:
        """Undo `take_over`."""
        while self._taken_over:
            logger, handlers, propagate = self._taken_over.pop()
            logger.handlers, logger.propagate = handlers, propagate

    def _collect(self, line: str, level: int) -> None:
        self.warnings += level >= logging.WARNING
        if self.path is None:
            self._waiting.append(line)
        else:
            self._append(line)

    def _append(self, line: str) -> None:
        if self.path is None:
            return
        with suppress(OSError):  # a warning that cannot be written, as on a full disk, must not end a command
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as log:
                log.write(f"{line}\n")


_current: LibraryOutput | None = None


@contextmanager
def collect_library_output() -> Iterator[LibraryOutput]:
    """Collect the output of libraries within the block."""
    global _current
    outer, output = _current, LibraryOutput()
    _current = output
    output.start()
    try:
        yield output
    finally:
        output.stop()
        output.give_back()
        _current = outer


def stop_collecting() -> None:
    """Stop collecting in a process that was forked within the block of `collect_library_output`.

    What was taken over still goes to the root logger, which then writes to where the process has set it up to.
    """
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def take_over_loggers() -> None:
    """Keep what the imported libraries log off the terminal, if a command collects it."""
    if _current is not None:
        _current.take_over()


def write_library_output(path: Path, *, with_own_lines: bool = False) -> None:
    """Write what the command has collected, and will collect, to a file, with or without the lines of this package."""
    if _current is not None:
        _current.keeps_own_lines = with_own_lines
        _current.write_to(path)


def _is_installed(filename: str) -> bool:
    """Return whether a file belongs to an installed package, this package or Python; a file that is missing does."""
    path = Path(os.path.realpath(filename))
    return (
        not _INSTALLED.isdisjoint(path.parts)
        or path.is_relative_to(_PACKAGE)
        or path.is_relative_to(_STANDARD_LIBRARY)
        or not path.is_file()
    )


def _show(line: str) -> None:
    print_line(line, sys.stderr)
