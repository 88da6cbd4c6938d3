"""Lines that contain texts of others: of a shared database, a tracking server or a config.

A terminal obeys escape sequences in such a text: it would clear the screen, hide a line or type an answer.
"""

import re
import sys
from typing import TextIO

__all__ = ["print_line", "printable"]

# C0 and C1 except tab and line break, marks that change the direction of text, and surrogates, which cannot be printed.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text with each control character as its escape, such as `\x1b`. Tabs and line breaks stay."""
    return _CONTROL.sub(_escape, text)


def print_line(line: str, file: TextIO | None = None) -> None:
    """Print a line, without its control characters, and flush.

    Args:
        line: The line.
        file: Where it is printed; None for standard output.
    """
    print(printable(line), file=sys.stdout if file is None else file, flush=True)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
