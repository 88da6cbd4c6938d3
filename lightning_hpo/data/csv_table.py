"""Read a CSV file, keeping the line of each row for error messages."""

import csv
import difflib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from lightning_hpo.data.file_kind import BEGINNING, encoding_advice, kind_problem
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["CsvTable", "cell_problem", "check_readable", "nearest", "opened", "shown"]

# The C parser's limit is a C `long`, which has 32 bits on some platforms.
_LARGEST_FIELD = 2**31 - 1


class CsvTable:
    """Rows of a CSV file with the line at which each starts, read one by one.

    Args:
        path: The file: UTF-8, with or without a byte order mark, any mixture of line endings.
        flag: The flag that names the file.
        columns: Required columns; others are ignored.

    Raises:
        InputError: The file cannot be read, is of another kind, is empty, or lacks a column.
    """

    def __init__(self, path: str | Path, *, flag: str, columns: Sequence[str]) -> None:
        self.path = Path(path)
        check_readable(self.path, flag=flag, table=True)
        _check_separator(self.path, columns)
        self._records = _records(self.path)
        first = next(self._records, None)
        if first is None:
            raise InputError(f"{self.path}: the file is empty; it needs the columns {', '.join(columns)}")
        self._header = [name.strip() for name in first[1]]
        if problems := self._missing(columns):
            deque(self._records, maxlen=0)  # raises if the file is not a CSV file at all, which explains more
            raise InputError(problems)

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield line and cells of each row, once.

        Raises:
            InputError: After the last row: the file has no rows, or some have too many or too few cells. The latter are
                not yielded.
        """
        width, problems, line = len(self._header), [], None
        for line, cells in self._records:
            if len(cells) == width:
                yield line, dict(zip(self._header, cells, strict=True))
            else:
                problems.append(
                    f"{self.path}, line {line}: got {len(cells)} cells, but the header has {width}; put text with"
                    " commas or line breaks in quotes"
                )
        if line is None:
            problems.append(f"{self.path}: the file has a header and no rows; add at least one row")
        raise_problems(problems)

    def _missing(self, columns: Sequence[str]) -> list[str]:
        missing = [column for column in columns if column not in self._header]
        # If a column is there, the line is a header. Otherwise it may be the first post.
        is_header = len(missing) < len(columns)
        names = [name for name in self._header if is_header or _is_name(name, columns)]
        meant = {column: nearest(column, names) for column in missing}
        if len(missing) == len(columns) and not any(meant.values()):
            return [
                f"{self.path}: the first line has none of the columns {', '.join(columns)}; if the file has no header, "
                f"add one such as `{','.join(columns)}`, otherwise rename its columns"
            ]
        problems = [
            f"{self.path}: no column {column}{meant[column]}; it needs the columns {', '.join(columns)}"
            for column in missing
        ]
        return problems + [
            f"{self.path}: the column {column} occurs twice; rename or remove one"
            for column in columns
            if self._header.count(column) > 1
        ]


def cell_problem(path: Path, line: int, column: str, message: str) -> str:
    """Return an error line about a cell."""
    return f"{path}, line {line}, column {column}: {message}"


def check_readable(path: Path, *, flag: str, table: bool = False) -> None:
    """Check that a file can be read and is UTF-8 text.

    Args:
        path: The file.
        flag: The flag that names it.
        table: Whether it must be a CSV file.

    Raises:
        InputError: The file does not exist, may not be read, is of another kind, or is not UTF-8.
    """
    with opened(path, flag=flag) as file:
        if problem := kind_problem(path, file.read(BEGINNING), table=table):
            raise InputError(problem)
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: the file is not UTF-8; {encoding_advice(error)}") from None
            if b"\x00" in line:
                raise InputError(f"{path}, line {number}: the line has a NUL byte; the file is damaged, restore it")


@contextmanager
def opened(path: Path, *, flag: str) -> Iterator[BufferedReader]:
    """Open a file for reading bytes.

    Raises:
        InputError: The file does not exist or may not be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{flag}: {str(path)!r} cannot be read ({reason}); give the path of a readable file"
        ) from error


def shown(value: str) -> str:
    """Return an id as errors may show it: if it looks like an id, as it is, otherwise by its length.

    A word without a digit or an underscore may be text of a post.
    """
    is_id = re.fullmatch(r"[\w.:-]{1,40}", value, re.ASCII) and re.search(r"[0-9_]", value)
    return repr(value) if is_id else f"a value of {len(value)} character{'s' * (len(value) != 1)}"


def nearest(name: str, names: Sequence[str]) -> str:
    """Return `; did you mean X?` for the closest of the names, or an empty string if none is close."""
    by_key = {_key(candidate): candidate for candidate in names}
    close = difflib.get_close_matches(_key(name), by_key, n=1, cutoff=0.6)
    partial = [key for key in by_key if min(len(key), len(_key(name))) > 3 and (key in _key(name) or _key(name) in key)]
    best = [*close, *partial][:1]
    return f"; did you mean {by_key[best[0]]}?" if best else ""


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _is_name(name: str, columns: Sequence[str]) -> bool:
    """Return whether an error may show a cell of the first line, which is post text if the header is missing."""
    return shown(name) == repr(name) or _key(name) in map(_key, columns)


def _check_separator(path: Path, columns: Sequence[str]) -> None:
    """Refuse a header whose columns are not separated by commas.

    Raises:
        InputError: The header has the columns if it is split at another sign.
    """
    with path.open(encoding="utf-8-sig") as file:
        header = next((line for line in file if line.strip()), "")
    if re.fullmatch(r'"?sep=.?"?\s*', header):
        raise InputError(f"{path}: the first line only names a separator; remove it, and save the file with commas")
    for sign, name in ((",", ""), (";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        if set(columns) & {cell.strip().strip("\"'").strip() for cell in header.split(sign)}:
            if name:
                raise InputError(f"{path}: its columns are separated by {name}; save the file with commas")
            return


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of every record that is not blank."""
    csv.field_size_limit(_LARGEST_FIELD)
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict: otherwise an unclosed quote would silently turn the rest of the file into one cell.
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            cause = str(error)
            if cause == "unexpected end of data":
                cause = "a quote that opens here is never closed; the file may be cut off"
            raise InputError(f"{path}, line {line}: the row is not valid CSV ({cause}); check its quotes") from None
