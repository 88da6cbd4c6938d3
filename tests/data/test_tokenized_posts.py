from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data import tokenized_posts
from lightning_hpo.data.tokenized_posts import TokenizedPosts

POSTS = {"a": "w1 w2 w3", "b": "\u200b", "c": "w4"}


def _never(*_: object) -> None:
    raise AssertionError("the cache was not read")


def _same(one: TokenizedPosts, other: TokenizedPosts) -> bool:
    return all(
        np.array_equal(one[post].ids, other[post].ids) and np.array_equal(one[post].offsets, other[post].offsets)
        for post in POSTS
    )


def test_the_second_time_the_tokens_are_read(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TokenizedPosts(POSTS, tokenizer, tmp_path)
    assert [len(first[post]) for post in POSTS] == [3, 0, 1]
    monkeypatch.setattr(tokenized_posts, "tokenize", _never)
    assert _same(first, TokenizedPosts(POSTS, tokenizer, tmp_path))
    assert [path.suffix for path in (tmp_path / ".cache").iterdir()] == [".npy"]


def test_other_texts_and_another_tokenizer_are_other_tokens(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    TokenizedPosts(POSTS, tokenizer, tmp_path)
    assert len(TokenizedPosts(POSTS | {"c": "w4 w5"}, tokenizer, tmp_path)["c"]) == 2
    assert len(list((tmp_path / ".cache").iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_a_damaged_cache_is_made_again(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, content: bytes | None
) -> None:
    first = TokenizedPosts(POSTS, tokenizer, tmp_path)
    (path,) = (tmp_path / ".cache").iterdir()
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert _same(first, TokenizedPosts(POSTS, tokenizer, tmp_path))
    assert _same(first, TokenizedPosts(POSTS, tokenizer, tmp_path))


def test_a_read_only_folder_stays_as_it_is(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert len(TokenizedPosts(POSTS, tokenizer, tmp_path)["a"]) == 3
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o755)
