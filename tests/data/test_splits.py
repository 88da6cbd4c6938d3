from dataclasses import replace
from pathlib import Path

import pytest

from lightning_hpo.data.cache import Cache
from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.pairs import Pair
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.splits import Split, check_disjoint, fingerprint, split_posts
from lightning_hpo.exceptions import InputError, LightningHpoError

POSTS = {f"p{number}": f"text {number // 2}" if number < 20 else f"text {number}" for number in range(100)}
POSTS |= {"twin": " Text\n 3 "}


def _split(seed: int = 1, **posts: str) -> Split:
    return split_posts(Posts.of(POSTS | posts), seed=seed, val_fraction=0.2, test_fraction=0.1)


def test_splits_have_their_share_and_no_text_in_common() -> None:
    split = _split()
    check_disjoint(Posts.of(POSTS), split)
    assert sorted(split.train + split.val + split.test) == sorted(POSTS)
    assert 19 <= len(split.val) <= 22
    assert 9 <= len(split.test) <= 12
    part = next(part for part in (split.train, split.val, split.test) if "twin" in part)
    assert {"p6", "p7"} <= set(part)


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    backwards = Posts.of(dict(reversed(POSTS.items())))
    again = split_posts(backwards, seed=1, val_fraction=0.2, test_fraction=0.1)
    assert set(again.val) == set(_split().val)
    assert set(_split(seed=2).val) != set(_split().val)


def test_additional_post_moves_few_others() -> None:
    assert len(set(_split().val) ^ set(_split(new="a new text").val)) <= 2


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.1), (0.1, 1.0), (-1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_invalid_fractions_are_errors(val: float, test: float) -> None:
    with pytest.raises(InputError, match=r"--data\.(val|test)_fraction"):
        split_posts(Posts.of(POSTS), seed=1, val_fraction=val, test_fraction=test)


def test_empty_split_is_an_error() -> None:
    with pytest.raises(InputError, match="2 different texts are too few, the split val is empty"):
        split_posts(Posts.of({"a": "x", "b": "y", "c": "X"}), seed=1, val_fraction=0.1, test_fraction=0.4)


def test_shared_post_or_text_is_an_error_with_counts() -> None:
    posts = Posts.of({"a": "one", "b": "two", "c": "ONE"})
    with pytest.raises(LightningHpoError, match="1 posts and 1 texts"):
        check_disjoint(posts, Split(("a",), ("b",), ("a",)))
    with pytest.raises(LightningHpoError, match="0 posts and 1 texts"):
        check_disjoint(posts, Split(("a",), ("b",), ("c",)))


def test_fingerprint_changes_with_the_evaluation_data() -> None:
    corpus = Corpus(Posts.of(POSTS), {"A": "text"}, (Pair("p1", "A", True, ((0, 4),)),))
    split = _split()
    changed = [
        fingerprint(corpus, split),
        fingerprint(corpus, split, "more"),
        fingerprint(corpus, _split(seed=2)),
        fingerprint(replace(corpus, posts=Posts.of(POSTS | {"p1": "else"})), split),
        fingerprint(replace(corpus, criteria={"A": "other"}), split),
        fingerprint(replace(corpus, pairs=(Pair("p1", "A", True, ((0, 3),)),)), split),
        fingerprint(replace(corpus, pairs=(Pair("p1", "A", False),)), split),
    ]
    assert len(set(changed)) == len(changed)
    assert len(changed[0]) == 16
    assert fingerprint(replace(corpus, posts=Posts.of(dict(reversed(POSTS.items())))), split) == changed[0]


def test_fingerprint_is_that_of_earlier_versions() -> None:
    corpus = Corpus(Posts.of({"b": "zwei ☺", "a": 'one "x"'}), {"A": "text"}, (Pair("a", "A", True, ((0, 3),)),))
    assert fingerprint(corpus, Split(("b",), ("a",), ()), "Kind", 17, [("a", "A")]) == "b2a81218d051b868"


def test_cached_fingerprint_depends_on_all_arguments(tmp_path: Path) -> None:
    posts = Posts(Posts.of(POSTS).ids, Posts.of(POSTS).texts, Cache(tmp_path / "posts.csv", "key"))
    corpus = Corpus(posts, {"A": "text"}, (Pair("p1", "A", True, ((0, 4),)),))
    changed = [
        (corpus, _split(), 1),
        (corpus, _split(), 2),
        (corpus, _split(seed=2), 1),
        (replace(corpus, pairs=(Pair("p1", "A", False),)), _split(), 1),
    ]
    expected = [fingerprint(replace(one, posts=Posts.of(POSTS)), split, more) for one, split, more in changed]
    for _ in range(2):
        assert [fingerprint(*of) for of in changed] == expected


def test_split_order_is_cached_by_seed(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "posts.csv", "key")
    posts = Posts(Posts.of(POSTS).ids, Posts.of(POSTS).texts, kept)
    splits = [split_posts(posts, seed=seed, val_fraction=0.2, test_fraction=0.1) for seed in (1, 2, 1, 2)]
    assert splits[0] == splits[2] == _split()
    assert splits[1] == splits[3] == _split(seed=2)
    assert len(list((tmp_path / ".cache/lightning_hpo/posts.csv").iterdir())) == 2
