from dataclasses import replace

import pytest

from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.splits import Split, check_disjoint, fingerprint, split_posts
from lightning_hpo.exceptions import InputError, LightningHpoError

POSTS = {f"p{number}": f"text {number // 2}" if number < 20 else f"text {number}" for number in range(100)}
POSTS |= {"twin": " Text\n 3 "}


def _split(seed: int = 1, **posts: str) -> Split:
    return split_posts(POSTS | posts, seed=seed, val_fraction=0.2, test_fraction=0.1)


def test_parts_have_their_share_and_no_text_in_common() -> None:
    split = _split()
    check_disjoint(POSTS, split)
    assert sorted(split.train + split.val + split.test) == sorted(POSTS)
    assert 19 <= len(split.val) <= 22
    assert 9 <= len(split.test) <= 12
    part = next(part for part in (split.train, split.val, split.test) if "twin" in part)
    assert {"p6", "p7"} <= set(part)


def test_the_seed_decides_and_the_order_does_not() -> None:
    backwards = dict(reversed(POSTS.items()))
    again = split_posts(backwards, seed=1, val_fraction=0.2, test_fraction=0.1)
    assert set(again.val) == set(_split().val)
    assert set(_split(seed=2).val) != set(_split().val)


def test_one_more_post_moves_few_others() -> None:
    assert len(set(_split().val) ^ set(_split(new="a new text").val)) <= 2


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.1), (0.1, 1.0), (-1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_fractions_that_cannot_be(val: float, test: float) -> None:
    with pytest.raises(InputError, match=r"--data\.(val|test)_fraction"):
        split_posts(POSTS, seed=1, val_fraction=val, test_fraction=test)


def test_a_part_that_would_be_empty_is_refused() -> None:
    with pytest.raises(InputError, match="none is left for the part val"):
        split_posts({"a": "x", "b": "y", "c": "X"}, seed=1, val_fraction=0.1, test_fraction=0.4)


def test_a_shared_post_or_text_is_refused_with_counts() -> None:
    posts = {"a": "one", "b": "two", "c": "ONE"}
    with pytest.raises(LightningHpoError, match="1 posts and 1 texts"):
        check_disjoint(posts, Split(("a",), ("b",), ("a",)))
    with pytest.raises(LightningHpoError, match="0 posts and 1 texts"):
        check_disjoint(posts, Split(("a",), ("b",), ("c",)))


def test_the_fingerprint_sees_whatever_decides_what_is_measured() -> None:
    corpus = Corpus(POSTS, {"A": "text"}, (Pair("p1", "A", True, ((0, 4),)),))
    split = _split()
    changed = [
        fingerprint(corpus, split),
        fingerprint(corpus, split, "more"),
        fingerprint(corpus, _split(seed=2)),
        fingerprint(replace(corpus, posts=POSTS | {"p1": "else"}), split),
        fingerprint(replace(corpus, criteria={"A": "other"}), split),
        fingerprint(replace(corpus, pairs=(Pair("p1", "A", True, ((0, 3),)),)), split),
        fingerprint(replace(corpus, pairs=(Pair("p1", "A", False),)), split),
    ]
    assert len(set(changed)) == len(changed)
    assert len(changed[0]) == 16
    assert fingerprint(replace(corpus, posts=dict(reversed(POSTS.items()))), split) == changed[0]
