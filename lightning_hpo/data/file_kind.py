"""Recognize files that are not UTF-8 text, by how they begin."""

import re
import zipfile
from pathlib import Path

__all__ = ["BEGINNING", "encoding_advice", "kind_problem"]

BEGINNING = 4096
"""Number of bytes at the start of a file that decide."""

# How a file of a kind begins, what it is, and what to do about it.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the data", "run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the data", "run `git annex get` for it"),
    (b"\x1f\x8b", "compressed with gzip", "decompress it"),
    (b"BZh", "compressed with bzip2", "decompress it"),
    (b"\xfd7zXZ\x00", "compressed with xz", "decompress it"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "decompress it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\xd0\xcf\x11\xe0", "a workbook of Excel 97 to 2003", "save it as CSV in UTF-8"),
    (b"PAR1", "a Parquet file", "save it as CSV"),
    (b"ARROW1", "an Arrow file", "save it as CSV"),
    (b"\x89HDF", "an HDF5 file", "save it as CSV"),
    (b"\x80\x02", "a Python pickle", "save it as CSV"),
    (b"\x80\x03", "a Python pickle", "save it as CSV"),
    (b"\x80\x04", "a Python pickle", "save it as CSV"),
    (b"\x80\x05", "a Python pickle", "save it as CSV"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"%PDF", "a PDF document", "use the data as CSV"),
    (b"{\\rtf", "a rich text document", "save it as plain text"),
    (b"\xff\xfe\x00\x00", "UTF-32", "save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16", "save it as UTF-8"),
)
_ZIP = b"PK\x03\x04"
_BOM = b"\xef\xbb\xbf"


def kind_problem(path: Path, beginning: bytes, *, table: bool) -> str | None:
    """Return why a file is not text of the right kind, and what to do about it, or None.

    Args:
        path: The file.
        beginning: Its first bytes.
        table: Whether it must be a CSV file. Otherwise JSON is accepted, which is also YAML.
    """
    for start, kind, advice in _KINDS:
        if beginning.startswith(start):
            return f"{path}: the file is {kind}; {advice}"
    if beginning.startswith(_ZIP):
        return f"{path}: the file is {_zip_kind(path)}"
    if _is_utf_16(beginning):
        return f"{path}: the file is UTF-16; save it as UTF-8"
    text = beginning.removeprefix(_BOM).lstrip().lower()
    if re.match(rb"<(!doctype\s+html|html|head|body|!--)", text):
        return f"{path}: the file is a web page, perhaps an error or a login page; download the data itself"
    if text.startswith(b"<?xml"):
        return f"{path}: the file is XML; save it as {'CSV' if table else 'plain text'}"
    if table and re.match(rb'(\[\s*)?\{\s*"[^"]*"\s*:|\[\s*[\[\]]', text):
        return f"{path}: the file is JSON; save it as CSV"
    return None


def encoding_advice(error: UnicodeDecodeError) -> str:
    """Return what to do about a line that is not UTF-8: restore the file, or convert Western European text."""
    line = error.object
    if error.reason == "unexpected end of data" and not line.endswith(b"\n"):
        return "it is cut off within a character: restore it"
    # Control characters do not occur in text, and Windows-1252 does not define some bytes.
    try:
        is_text = not re.search(r"[\x00-\x08\x0e-\x1f]", line.decode("cp1252"))
    except UnicodeDecodeError:
        is_text = False
    if is_text:
        return "it may be Windows-1252 or Latin-1: convert it with `iconv -f WINDOWS-1252 -t UTF-8`"
    return "save it as UTF-8, or restore it if it is damaged"


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook; save it as CSV in UTF-8"
    if "content.xml" in names:
        return "an OpenDocument file; save it as CSV in UTF-8"
    return "a ZIP archive; unpack it"


def _is_utf_16(beginning: bytes) -> bool:
    """Return whether most bytes at even places are zero, or most at odd ones: UTF-16 without a byte order mark."""
    even, odd = (half.count(0) > len(half) // 2 for half in (beginning[0::2], beginning[1::2]))
    return even != odd
