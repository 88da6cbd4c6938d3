from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


TEXTS = st.lists(st.sampled_from(["a", "b", "A ", "c", "d", "e", "f", "g", "h"]), min_size=9, max_size=30)
LABELS = st.sets(st.tuples(st.integers(0, 29), st.sampled_from("XYZ")))


@given(TEXTS, LABELS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_stratified_split_is_disjoint_and_depends_on_no_order(
    texts: list[str], labels: set[tuple[int, str]], seed: int, random: Random
) -> None:
    posts = {f"p{number}": text for number, text in enumerate([*texts, *"abcdefgh"])}
    positives = [(f"p{number}", label) for number, label in sorted(labels) if number < len(posts)]
    shares: dict[str, Any] = {"seed": seed, "val_fraction": 0.3, "test_fraction": 0.3}
    split = split_posts(Posts.of(posts), **shares, positives=positives)
    check_disjoint(Posts.of(posts), split)  # duplicate texts are together
    assert sorted([*split.train, *split.val, *split.test]) == sorted(posts)
    shuffled = random.sample(sorted(posts.items()), len(posts))
    again = split_posts(Posts.of(dict(shuffled)), **shares, positives=random.sample(positives, len(positives)))
    assert [set(each) for each in vars(again).values()] == [set(each) for each in vars(split).values()]


def test_every_split_has_its_share_of_each_criterion() -> None:
    positives = [(f"p{number}", "RARE") for number in range(20, 30)]
    positives += [(f"p{number}", "OFTEN") for number in range(25, 75)]
    for seed in range(5):
        split = split_posts(Posts.of(POSTS), seed=seed, val_fraction=0.2, test_fraction=0.1, positives=positives)
        for criterion, wanted in (("RARE", (7, 2, 1)), ("OFTEN", (35, 10, 5))):
            own = {post_id for post_id, label in positives if label == criterion}
            counts = [len(own.intersection(each)) for each in vars(split).values()]
            assert counts == pytest.approx(wanted, abs=1)


def test_text_of_many_posts_counts_once() -> None:
    posts = {f"p{number}": f"text {number}" for number in range(40)} | {f"r{n}": "[removed]" for n in range(60)}
    for seed in range(10):
        split = split_posts(
            Posts.of(posts), seed=seed, val_fraction=0.2, test_fraction=0.2, positives=[("p1", "A"), ("p2", "A")]
        )
        texts = [len({posts[post_id] for post_id in post_ids}) for post_ids in vars(split).values()]
        assert texts == pytest.approx([25, 8, 8], abs=1)


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
