import gzip
import io
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from lightning_hpo.data.criteria import read_criteria
from lightning_hpo.data.file_kind import kind_problem
from lightning_hpo.data.posts import read_posts
from lightning_hpo.exceptions import InputError

CSV = "post_id,text\np1,I am sad.\np2,Fine.\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def _zip(**files: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def _database(folder: Path) -> bytes:
    path = folder / "posts.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE posts (post_id, text)")
    connection.close()
    return path.read_bytes()


KINDS: dict[str, tuple[bytes, str]] = {
    "git lfs": (POINTER, "a Git LFS pointer, not the data; run `git lfs pull`"),
    "gzip": (gzip.compress(CSV.encode()), "compressed with gzip"),
    "zip": (_zip(posts=CSV), "a ZIP archive"),
    "excel": (_zip(xl__workbook="", content=""), "an Excel workbook"),
    "utf-16": (CSV.encode("utf-16"), "UTF-16"),
    "utf-16 without mark": (CSV.encode("utf-16-be"), "UTF-16"),
    "utf-32": (CSV.encode("utf-32"), "UTF-32"),
    "web page": (b"\n<!DOCTYPE html>\n<html><title>404</title></html>", "a web page"),
    "json lines": (b'{"post_id": "p1", "text": "I am sad."}\n{"post_id": "p2", "text": "x"}\n', "JSON"),
    "json": (json.dumps([{"post_id": "p1", "text": "I am sad."}], indent=1).encode(), "JSON"),
    "xml": (b'\xef\xbb\xbf<?xml version="1.0"?><posts/>', "XML"),
    "parquet": (b"PAR1\x15\x04\x15 PAR1", "a Parquet file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_file_of_another_kind_is_named(tmp_path: Path, kind: str) -> None:
    content, words = KINDS[kind]
    path = tmp_path / "posts.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_posts(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: the file is {words}")
    assert "sad" not in line


def test_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_bytes(_database(tmp_path))
    with pytest.raises(InputError, match="an SQLite database; export the table as CSV"):
        read_posts(path)


def test_criteria_are_checked_and_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "criteria.yaml"
    path.write_bytes(POINTER)
    with pytest.raises(InputError, match="a Git LFS pointer"):
        read_criteria(path)
    path.write_text('{"A": "one"}')
    assert read_criteria(path) == {"A": "one"}


@pytest.mark.parametrize(
    "text", [CSV, "\ufeff" + CSV, "post_id,text\n1,[a](b)\n", "[post_id],x\n", "<i>,x\n", "versions,x\n", ""]
)
def test_text_is_of_no_other_kind(text: str) -> None:
    assert kind_problem(Path("posts.csv"), text.encode(), table=True) is None
