from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data import tokenized_posts
from lightning_hpo.data.cache import Cache
from lightning_hpo.data.tokenized_posts import TokenizedPosts

TEXTS = ["w1 w2 w3", "\u200b", "w4"]


def _never(*_: object) -> None:
    raise AssertionError("the cache was not read")


def test_the_second_time_the_tokens_are_read(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TokenizedPosts(TEXTS, tokenizer, Cache(tmp_path, "key"))
    assert first.lengths.tolist() == [len(first[row]) for row in range(len(first))] == [3, 0, 1]
    monkeypatch.setattr(tokenized_posts, "token_stretches", _never)
    second = TokenizedPosts(TEXTS, tokenizer, Cache(tmp_path, "key"))
    for row in range(len(TEXTS)):
        assert np.array_equal(first[row].ids, second[row].ids)
        assert np.array_equal(first[row].offsets, second[row].offsets)


def test_another_tokenizer_has_other_tokens(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    plain = TokenizedPosts(TEXTS, tokenizer, Cache(tmp_path, "key"))
    more = tokenizer.__class__.from_pretrained(tokenizer.name_or_path)
    more.add_tokens("w1 w2")
    assert len(TokenizedPosts(TEXTS, more, Cache(tmp_path, "key"))[0]) < len(plain[0])
