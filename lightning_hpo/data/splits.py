"""Split posts into training, validation and test, and fingerprint the result."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.csv_table import shown
from lightning_hpo.data.posts import Posts
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = ["Split", "check_disjoint", "fingerprint", "split_posts"]


@dataclass(frozen=True)
class Split:
    """Post ids by part, each in the order of the corpus."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def split_posts(posts: Posts, *, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """Draw the parts by groups of posts with the same text.

    A group's place is a hash of the seed and its text, so neither the order of the file nor a few more posts
    reshuffle the rest.

    Args:
        posts: The posts.
        seed: Seed of the data, not of a trial.
        val_fraction: Share of the posts for validation.
        test_fraction: Share of the posts for the test.

    Raises:
        InputError: A fraction is not between 0 and 1, or a part would be empty.
    """
    _refuse_fractions(val_fraction, test_fraction)
    places = _places(posts, seed)
    sizes = np.bincount(places)
    test = _groups(sizes, test_fraction * len(posts))
    val = test + _groups(sizes[test:], val_fraction * len(posts))
    masks = {"train": places >= val, "val": (places >= test) & (places < val), "test": places < test}
    parts = {name: tuple(posts.ids[row] for row in np.flatnonzero(mask).tolist()) for name, mask in masks.items()}
    _refuse_empty(parts, len(sizes))
    return Split(**parts)


def check_disjoint(posts: Posts, split: Split, *, seed: int = 0) -> None:
    """Refuse a split that puts a post, or a text under two ids, in two parts.

    Args:
        posts: The posts.
        split: Their split.
        seed: Any; with that of the split the texts need not be read again.

    Raises:
        LightningHpoError: With the counts, and one that leaks.
    """
    parts, places = vars(split), _places(posts, seed)
    ids = sum(len(part) for part in parts.values()) - len(set().union(*parts.values()))
    rows = {part: np.fromiter(map(posts.row.__getitem__, post_ids), np.int64) for part, post_ids in parts.items()}
    drawn = np.array([np.bincount(places[own], minlength=len(posts)) > 0 for own in rows.values()])
    shared = np.flatnonzero(drawn.sum(axis=0) > 1)
    if len(shared):
        everything = np.concatenate([places[own] for own in rows.values()])
        first = everything[np.isin(everything, shared)][0]
        owners = {part: own[places[own] == first] for part, own in rows.items()}
        one = " is that of ".join(
            f"post {shown(posts.ids[own[0]])} in {part}" for part, own in owners.items() if len(own)
        )
        raise LightningHpoError(
            f"leak: the parts of the split share {ids} posts and {len(shared)} texts, and must share none; the text of "
            f"{one}"
        )


def fingerprint(corpus: Corpus, split: Split, *more: object) -> str:
    """16 hexadecimal digits of everything that decides what is measured: posts, evidence, criteria, split.

    Args:
        corpus: The corpus.
        split: Its split.
        more: Anything else that decides it, as JSON can hold it.
    """
    posts = corpus.posts
    pairs = sorted((pair.post_id, pair.criterion, pair.met, pair.spans) for pair in corpus.pairs)
    parts = {name: sorted(part) for name, part in vars(split).items()}
    rest = json.dumps([sorted(corpus.criteria.items()), pairs, parts, more])

    def digest() -> NDArray[np.uint8]:
        # All is one list in JSON, of which the posts come one by one.
        whole = hashlib.sha256(b"[[")
        order = sorted(range(len(posts)), key=posts.ids.__getitem__)
        for place, row in enumerate(order):
            whole.update((", " * (place > 0) + json.dumps([posts.ids[row], posts.texts[row]])).encode())
        whole.update(f"], {rest[1:]}".encode())
        return np.frombuffer(whole.digest()[:8], np.uint8)

    return posts.cache.array(f"fingerprint-{hashlib.sha256(rest.encode()).hexdigest()[:32]}", digest).tobytes().hex()


def _places(posts: Posts, seed: int) -> NDArray[np.int64]:
    """Place of each post in the draw, shape [posts]; posts with the same text have the same one."""

    def draw() -> NDArray[np.int64]:
        texts = (f"{seed}\n{_normalised(text)}".encode("utf-8", "replace") for text in posts.texts)
        digests = np.fromiter((hashlib.sha256(text).digest() for text in texts), "S32", len(posts))
        return np.unique(digests, return_inverse=True)[1]

    return posts.cache.array(f"draw-{seed}", draw)


def _groups(sizes: NDArray[np.int64], wanted: float) -> int:
    """How many groups a part takes, in the order of the draw, until half a post or less is missing."""
    before = np.cumsum(sizes) - sizes
    return int((wanted - before > 0.5).sum())


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def _refuse_fractions(val_fraction: float, test_fraction: float) -> None:
    problems = [
        f"--data.{name}: {value} is not between 0 and 1; 0.15 is usual"
        for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction))
        if not 0 < value < 1
    ]
    if not problems and val_fraction + test_fraction >= 1:
        problems = [
            f"--data.val_fraction, --data.test_fraction: {val_fraction} + {test_fraction} leaves nothing to train"
        ]
    if problems:
        raise InputError(problems)


def _refuse_empty(parts: Mapping[str, tuple[str, ...]], texts: int) -> None:
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise InputError(
            f"--data.posts: of {texts} different texts none is left for the part {' and '.join(empty)};"
            " use more posts or other --data.val_fraction and --data.test_fraction"
        )
