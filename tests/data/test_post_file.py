import os
from pathlib import Path

import pytest

from lightning_hpo.data import post_file
from lightning_hpo.data.post_file import read_posts
from lightning_hpo.exceptions import InputError

from .conftest import WriteCsv

ROWS = [("post_id", "text"), ("b", "one\r\n☺"), ("a", "two"), ("b", "one\r\n☺")]


def test_posts_with_problems(write_csv: WriteCsv) -> None:
    rows = [("post_id", "text"), ("a", "one"), ("a", "two"), ("", "three"), ("b", "  "), ("a", "one")]
    with pytest.raises(InputError) as caught:
        read_posts(write_csv("posts.csv", rows))
    assert [problem.split(", ")[1] for problem in caught.value.problems] == ["line 3", "line 4", "line 5"]


def test_the_same_post_twice_is_read_once(write_csv: WriteCsv) -> None:
    assert read_posts(write_csv("posts.csv", [("post_id", "text"), ("a", "one"), ("a", "one")])) == {"a": "one"}


def test_the_second_time_what_was_kept_is_read(write_csv: WriteCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv("posts.csv", ROWS)
    first = read_posts(path)
    monkeypatch.setattr(post_file, "CsvTable", None)
    second = read_posts(path)
    assert list(first.items()) == list(second.items()) == [ROWS[1], ROWS[2]]
    assert first.repeated == second.repeated == 1


def test_another_file_is_read_whatever_its_date(write_csv: WriteCsv) -> None:
    path = write_csv("posts.csv", ROWS)
    read_posts(path)
    date = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"two", b"owt"))
    os.utime(path, ns=(date, date))
    assert read_posts(path)["a"] == "owt"


def test_a_file_with_problems_is_not_kept(write_csv: WriteCsv) -> None:
    path = write_csv("posts.csv", [*ROWS, ("a", "three")])
    for _ in range(2):
        with pytest.raises(InputError, match="line 7, column post_id: 'a' has another text"):
            read_posts(path)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_missing_file_names_the_flag(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--data\.posts: .*cannot be read"):
        read_posts(tmp_path / name)
