"""Standard error that may vanish, as when a terminal is closed or the reader of a pipe exits."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

__all__ = ["lasting_stderr"]


@contextmanager
def lasting_stderr() -> Iterator[None]:
    """Let no write to standard error raise within the block. What cannot be written is discarded."""
    before = sys.stderr
    sys.stderr = cast(TextIO, _LastingStream(before))
    try:
        yield
    finally:
        sys.stderr = before


class _LastingStream:
    """A text stream that is redirected to the null device at the first write that fails.

    Libraries in C and the interpreter's exit, which write to the same descriptor, do not fail then either.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, and return its length in any case."""
        try:
            return self._stream.write(text)
        except OSError:
            self._discard_from_now_on()
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError:
            self._discard_from_now_on()

    def __getattr__(self, name: str) -> Any:
        """Return everything else of the stream itself."""
        return getattr(self._stream, name)

    def _discard_from_now_on(self) -> None:
        with suppress(OSError):  # a stream without a descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._stream.fileno())
            finally:
                os.close(null)
