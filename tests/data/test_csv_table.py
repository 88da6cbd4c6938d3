from pathlib import Path

import pytest

from lightning_hpo.data.csv_table import CsvTable, nearest, shown
from lightning_hpo.exceptions import InputError


def _read(path: Path, content: bytes) -> list[tuple[int, dict[str, str]]]:
    path.write_bytes(content)
    return list(CsvTable(path, flag="--data.posts", columns=("post_id", "text")).rows())


def test_rows_have_their_first_line_and_every_byte(tmp_path: Path) -> None:
    rows = _read(tmp_path / "posts.csv", b'\xef\xbb\xbfpost_id,text\r\na,"one\r\ntwo\nthree"\r\n\r\nb,<i> [x](y)\n')
    assert rows == [
        (2, {"post_id": "a", "text": "one\r\ntwo\nthree"}),
        (6, {"post_id": "b", "text": "<i> [x](y)"}),
    ]


def test_long_cell_is_read(tmp_path: Path) -> None:
    assert len(_read(tmp_path / "posts.csv", b"post_id,text\na," + b"x" * 300_000)[0][1]["text"]) == 300_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty", "post_id, text"]),
        (b"post_id,text\n", ["no row"]),
        (b"post_id,Text \na,b\n", ["no column text", "did you mean Text?"]),
        (b"post_id,text,text\na,b,c\n", ["column text occurs twice"]),
        (b"post_id,text\na,b\nb,c,d\n", ["line 3", "3 cells", "header has 2"]),
        (b'post_id,text\na,"b\nc\n', ["line 2", "never closed", "cut off"]),
        (b'post_id,text\na,"b" c\n', ["line 2", "not valid CSV"]),
        (b"post_id;text\na;b\n", ["separated by semicolons"]),
        (b'"post_id";"text"\n"a";"b"\n', ["separated by semicolons"]),
        (b"\xef\xbb\xbfpost_id\ttext\na\tb\n", ["separated by tabs"]),
        (b"id|text\na|b\n", ["separated by vertical bars"]),
        (b"sep=;\npost_id;text\na;b\n", ["only names a separator"]),
        (b"a,b\nc,d\n", ["none of the columns post_id, text", "`post_id,text`"]),
        (b"post_id,text\na,b\x00c\n", ["line 2", "NUL byte"]),
        (b"post_id,text\na,jos\xe9\n", ["line 2", "Windows-1252"]),
        ("post_id,text\na,\u2639".encode()[:-1], ["line 2", "cut off within a character"]),
        (b"post_id,text\na,b\xff\n", ["line 2", "not UTF-8"]),
        # Errors of the whole file are reported instead of a missing column.
        (b"post_id\na\nb\xff\n", ["line 3", "not UTF-8"]),
        (b'post_id\na\n"b\n', ["line 3", "not valid CSV"]),
    ],
)
def test_invalid_file_is_a_one_line_error(tmp_path: Path, content: bytes, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        _read(tmp_path / "posts.csv", content)
    (line,) = caught.value.problems
    assert "\n" not in line
    assert str(tmp_path / "posts.csv") in line
    assert all(word in line for word in words), line


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_unreadable_file_is_an_error_that_names_the_flag(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--data\.posts: .*cannot be read"):
        CsvTable(tmp_path / name, flag="--data.posts", columns=("text",))


def test_error_about_a_missing_header_has_no_post_text(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        _read(tmp_path / "posts.csv", b"a,my secret text\nb,another secret\n")
    assert "secret" not in str(caught.value)


def test_errors_show_identifiers_only() -> None:
    assert shown("s_12.3-4") == "'s_12.3-4'"
    assert shown("two words") == "a value of 9 characters"
    for word in ("suicidal", "\u6211\u6bcf\u59291", "p\u0663", "w_" * 21):
        assert shown(word) == f"a value of {len(word)} characters"


def test_word_of_a_file_without_header_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        _read(tmp_path / "posts.csv", b"p1,texts\np2,more\n")
    assert "texts" not in str(caught.value)


def test_nearest_name() -> None:
    assert nearest("LEEP_ISSUES", ["FATIGUE", "SLEEP_ISSUES"]) == "; did you mean SLEEP_ISSUES?"
    assert nearest("symptom", ["post_id", "DSM5_symptom"]) == "; did you mean DSM5_symptom?"
    assert nearest("xyz", ["post_id"]) == ""
