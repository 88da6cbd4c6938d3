"""Split posts into training, validation and test posts, and fingerprint the result."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.csv_table import shown
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.stratification import stratify
from lightning_hpo.exceptions import InputError, LightningHpoError, raise_problems

__all__ = ["Split", "check_disjoint", "fingerprint", "split_posts"]


@dataclass(frozen=True)
class Split:
    """Post ids of each split, in the order of the corpus."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def split_posts(
    posts: Posts,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    positives: Iterable[tuple[str, str]] | None = None,
) -> Split:
    """Split posts so that posts with the same text are in the same split.

    Texts are ordered by a hash of the seed and the text, ignoring case and white space. So the order of the file does
    not matter, and a few more posts change the split of few others.

    Args:
        posts: The posts.
        seed: Seed of the split.
        val_fraction: Share of the validation split.
        test_fraction: Share of the test split.
        positives: Ids of the post and the criterion of each positive pair. Each split gets its share of the positive
            texts of every criterion, and each text counts once. None: the first texts that have the share of the posts
            are the test split, the next the validation split.

    Raises:
        InputError: A fraction is not between 0 and 1, or a split would be empty.
    """
    _check_fractions(val_fraction, test_fraction)
    places = _places(posts, seed)
    sizes, shares = np.bincount(places), np.array([test_fraction, val_fraction, 1 - test_fraction - val_fraction])
    if positives is None:
        drawn = _by_size(sizes, shares)
    else:
        drawn = _stratified(sizes, [(places[posts.row[post_id]], label) for post_id, label in positives], shares)
    own = drawn[places]
    test, val, train = (tuple(posts.ids[row] for row in np.flatnonzero(own == index).tolist()) for index in range(3))
    splits = {"train": train, "val": val, "test": test}
    if empty := [name for name, post_ids in splits.items() if not post_ids]:
        raise InputError(
            f"--data.posts: {len(drawn)} different texts are too few, the split {' and '.join(empty)} is empty;"
            " add posts or change --data.val_fraction and --data.test_fraction"
        )
    return Split(**splits)


def _by_size(sizes: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the split of each text: 0 test, 1 validation, 2 training. Every post counts."""
    test = _groups(sizes, shares[0] * sizes.sum())
    val = test + _groups(sizes[test:], shares[1] * sizes.sum())
    return np.searchsorted([test, val], np.arange(len(sizes)), side="right")


def _stratified(
    sizes: NDArray[np.int64], positives: Sequence[tuple[int, str]], shares: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the split of each text, stratified by criterion: 0 test, 1 validation, 2 training.

    Args:
        sizes: Number of posts of each text, shape [texts].
        positives: Index of the text and id of the criterion of each positive pair.
        shares: Share of each split, shape [3].
    """
    criteria = sorted({criterion for _, criterion in positives})
    rows, indices = np.unique(np.array([text for text, _ in positives], np.int64), return_inverse=True)
    labels = np.zeros((len(rows), len(criteria)), bool)
    column = {criterion: index for index, criterion in enumerate(criteria)}
    labels[indices, [column[criterion] for _, criterion in positives]] = True
    order = np.concatenate([rows, np.setdiff1d(np.arange(len(sizes)), rows)])
    splits = np.empty(len(sizes), np.int64)
    splits[order] = stratify(labels, shares, len(sizes))
    return splits


def check_disjoint(posts: Posts, split: Split, *, seed: int = 0) -> None:
    """Check that no post, and no text under different ids, is in two splits.

    Any seed works. With the split's seed, the cached hashes are used.

    Raises:
        LightningHpoError: The splits share posts or texts. The message has their numbers and one example.
    """
    splits, places = vars(split), _places(posts, seed)
    ids = sum(len(post_ids) for post_ids in splits.values()) - len(set().union(*splits.values()))
    rows = {name: np.fromiter(map(posts.row.__getitem__, post_ids), np.int64) for name, post_ids in splits.items()}
    drawn = np.array([np.bincount(places[own], minlength=len(posts)) > 0 for own in rows.values()])
    shared = np.flatnonzero(drawn.sum(axis=0) > 1)
    if len(shared):
        everything = np.concatenate([places[own] for own in rows.values()])
        first = everything[np.isin(everything, shared)][0]
        owners = {name: own[places[own] == first] for name, own in rows.items()}
        example = " is also that of ".join(
            f"post {shown(posts.ids[own[0]])} in {name}" for name, own in owners.items() if len(own)
        )
        raise LightningHpoError(
            f"leak: the splits share {ids} posts and {len(shared)} texts, and must share none; for example, the text of"
            f" {example}"
        )


def fingerprint(corpus: Corpus, split: Split, *more: object) -> str:
    """Return 16 hexadecimal digits that identify the evaluation data: posts, evidence, criteria and split.

    `more` is anything else that affects the evaluation data and that is serialisable as JSON.
    """
    posts = corpus.posts
    pairs = sorted((pair.post_id, pair.criterion, pair.met, pair.spans) for pair in corpus.pairs)
    splits = {name: sorted(post_ids) for name, post_ids in vars(split).items()}
    rest = json.dumps([sorted(corpus.criteria.items()), pairs, splits, more])

    def digest() -> NDArray[np.uint8]:
        # The digest of one JSON list, written post by post to save memory.
        whole = hashlib.sha256(b"[[")
        order = sorted(range(len(posts)), key=posts.ids.__getitem__)
        for place, row in enumerate(order):
            whole.update((", " * (place > 0) + json.dumps([posts.ids[row], posts.texts[row]])).encode())
        whole.update(f"], {rest[1:]}".encode())
        return np.frombuffer(whole.digest()[:8], np.uint8)

    return posts.cache.array(f"fingerprint-{hashlib.sha256(rest.encode()).hexdigest()[:32]}", digest).tobytes().hex()


def _places(posts: Posts, seed: int) -> NDArray[np.int64]:
    """Return the rank of each post's text in the order of the hashes, shape [posts]."""

    def draw() -> NDArray[np.int64]:
        texts = (f"{seed}\n{' '.join(text.casefold().split())}".encode("utf-8", "replace") for text in posts.texts)
        digests = np.fromiter((hashlib.sha256(text).digest() for text in texts), "S32", len(posts))
        return np.unique(digests, return_inverse=True)[1]

    return posts.cache.array(f"draw-{seed}", draw)


def _groups(sizes: NDArray[np.int64], wanted: float) -> int:
    """Return how many texts, in the order of the hashes, fill a split up to half a post."""
    before = np.cumsum(sizes) - sizes
    return int((wanted - before > 0.5).sum())


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    problems = [
        f"--data.{name}: got {value}; use a value above 0 and below 1"
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction))
        if not 0 < value < 1
    ]
    if not problems and val_fraction + test_fraction >= 1:
        problems = [
            f"--data.val_fraction, --data.test_fraction: {val_fraction} + {test_fraction} leaves no posts for training;"
            " lower one of them"
        ]
    raise_problems(problems)
