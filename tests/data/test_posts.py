import os
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data import posts
from lightning_hpo.data.cache import Cache
from lightning_hpo.data.posts import Texts, TokenizedPosts, read_posts, text_chunks
from lightning_hpo.data.ragged import Ragged
from lightning_hpo.exceptions import InputError

from .conftest import WriteCsv

ROWS = [("post_id", "text"), ("b", "one\r\n☺"), ("a", "two"), ("b", "one\r\n☺")]
TEXTS = ["w1 w2 w3", "\u200b", "w4"]

MANY = [f"☺ {number}\r\n" * (number % 3) for number in range(5000)]


def test_texts_are_read_in_any_order() -> None:
    texts = Texts(Ragged.gathered(text_chunks(MANY), np.uint8))
    assert list(texts) == MANY
    assert len(texts) == len(MANY)
    assert [texts[4000], texts[1]] == [MANY[4000], MANY[1]]


def test_problems_of_posts_are_reported_by_line(write_csv: WriteCsv) -> None:
    rows = [("post_id", "text"), ("a", "one"), ("a", "two"), ("", "three"), ("b", "  "), ("a", "one")]
    with pytest.raises(InputError) as caught:
        read_posts(write_csv("posts.csv", rows))
    assert [problem.split(", ")[1] for problem in caught.value.problems] == ["line 3", "line 4", "line 5"]


def test_posts_may_be_empty_where_they_are_only_predicted(write_csv: WriteCsv) -> None:
    path = write_csv("posts.csv", [("post_id", "text"), ("a", "one"), ("p2", " \n"), ("p3", "")])
    problems = [
        f"{path}, line {line}, column text: post '{post_id}' is empty; add text or remove it"
        for line, post_id in ((3, "p2"), (5, "p3"))
    ]
    for _ in range(2):  # read, then from the cache
        with pytest.raises(InputError) as caught:
            read_posts(path)
        assert caught.value.problems == problems
        found = read_posts(path, with_empty=True)
        assert found == {"a": "one", "p2": " \n", "p3": ""}
        assert found.empty == {"p2": 3, "p3": 5}


def test_repeated_post_is_read_once(write_csv: WriteCsv) -> None:
    assert read_posts(write_csv("posts.csv", [("post_id", "text"), ("a", "one"), ("a", "one")])) == {"a": "one"}


def test_posts_are_read_from_the_cache(write_csv: WriteCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv("posts.csv", ROWS)
    first = read_posts(path)
    monkeypatch.setattr(posts, "CsvTable", None)
    second = read_posts(path)
    assert list(first.items()) == list(second.items()) == [ROWS[1], ROWS[2]]
    assert first.repeated == second.repeated == 1


def test_changed_file_is_read_even_with_the_same_date(write_csv: WriteCsv) -> None:
    path = write_csv("posts.csv", ROWS)
    read_posts(path)
    date = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"two", b"owt"))
    os.utime(path, ns=(date, date))
    assert read_posts(path)["a"] == "owt"


def test_invalid_file_is_not_cached(write_csv: WriteCsv) -> None:
    path = write_csv("posts.csv", [*ROWS, ("a", "three")])
    for _ in range(2):
        with pytest.raises(InputError, match="line 7, column post_id: a value of 1 character has another text"):
            read_posts(path)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_unreadable_file_is_an_error_that_names_the_flag(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--data\.posts: .*cannot be read"):
        read_posts(tmp_path / name)


def _never(*_: object) -> None:
    raise AssertionError("the cache was not read")


def test_tokens_are_read_from_the_cache(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TokenizedPosts(TEXTS, tokenizer, Cache(tmp_path / "posts.csv", "key"))
    assert first.lengths.tolist() == [len(first[row]) for row in range(len(first))] == [3, 0, 1]
    monkeypatch.setattr(posts, "token_chunks", _never)
    second = TokenizedPosts(TEXTS, tokenizer, Cache(tmp_path / "posts.csv", "key"))
    for row in range(len(TEXTS)):
        assert np.array_equal(first[row].ids, second[row].ids)
        assert np.array_equal(first[row].offsets, second[row].offsets)


def test_cached_tokens_depend_on_the_tokenizer(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    plain = TokenizedPosts(TEXTS, tokenizer, Cache(tmp_path / "posts.csv", "key"))
    more = tokenizer.__class__.from_pretrained(tokenizer.name_or_path)
    more.add_tokens("w1 w2")
    assert len(TokenizedPosts(TEXTS, more, Cache(tmp_path / "posts.csv", "key"))[0]) < len(plain[0])
