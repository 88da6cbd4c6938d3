"""Reads a CSV file so that every later complaint can name its line and column."""

import csv
import difflib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_hpo.exceptions import InputError

__all__ = ["CsvTable", "nearest", "read_text", "shown"]

# The C parser's limit is a C long, which has 32 bits on some platforms.
_LARGEST_FIELD = 2**31 - 1


class CsvTable:
    """The rows of a CSV file with the line that each starts at.

    Args:
        path: The file: UTF-8, with or without a byte order mark, any mixture of line ends.
        flag: The flag that named the file.
        columns: Columns that must be there; others are ignored.

    Raises:
        InputError: The file cannot be read, is empty, holds no row, lacks a column, or has rows of another width.
    """

    def __init__(self, path: str | Path, *, flag: str, columns: Sequence[str]) -> None:
        self.path = Path(path)
        lines = list(_records(self.path, read_text(self.path, flag=flag)))
        if not lines:
            raise InputError(f"{self.path}: the file is empty; it needs the columns {', '.join(columns)}")
        header = [name.strip() for name in lines[0][1]]
        self._refuse_missing(header, columns)
        if len(lines) == 1:
            raise InputError(f"{self.path}: there is a header and no row; add at least one row")
        self._refuse_widths(lines[1:], len(header))
        self.rows = [(line, dict(zip(header, cells, strict=True))) for line, cells in lines[1:]]

    def problem(self, line: int, column: str, message: str) -> str:
        """One line about a cell, in the form that every problem of a table has."""
        return f"{self.path}, line {line}, column {column}: {message}"

    def _refuse_missing(self, header: list[str], columns: Sequence[str]) -> None:
        problems = [
            f"{self.path}: no column {column}{nearest(column, [name for name in header if shown(name) == repr(name)])};"
            f" it needs the columns {', '.join(columns)}"
            for column in columns
            if column not in header
        ]
        problems += [
            f"{self.path}: the column {column} is there twice" for column in columns if header.count(column) > 1
        ]
        if problems:
            raise InputError(problems)

    def _refuse_widths(self, lines: list[tuple[int, list[str]]], width: int) -> None:
        problems = [
            f"{self.path}, line {line}: {len(cells)} cells, but the header has {width}; quote text that has commas"
            for line, cells in lines
            if len(cells) != width
        ]
        if problems:
            raise InputError(problems)


def read_text(path: Path, *, flag: str) -> str:
    """The file's text, or one line about why it cannot be read.

    Raises:
        InputError: No such file, no right to read it, or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{flag}: {str(path)!r} cannot be read ({reason}); give the path of a readable file"
        ) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: the file is not UTF-8; save it as UTF-8") from None


def shown(value: str) -> str:
    """A cell as an error may show it: an identifier is repeated, anything else may be text of a post."""
    return repr(value) if re.fullmatch(r"[\w.:-]{1,40}", value) else f"a value of {len(value)} characters"


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean X?` for the closest of the names, or nothing where none is close."""
    by_key = {_key(candidate): candidate for candidate in names}
    close = difflib.get_close_matches(_key(name), by_key, n=1, cutoff=0.6)
    partial = [key for key in by_key if min(len(key), len(_key(name))) > 3 and (key in _key(name) or _key(name) in key)]
    best = [*close, *partial][:1]
    return f"; did you mean {by_key[best[0]]}?" if best else ""


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """(line the record starts at, cells) of every record that is not blank."""
    csv.field_size_limit(_LARGEST_FIELD)
    # Strict, since an unclosed quote would otherwise swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: this row is not valid CSV ({error}); check its quotes") from None
