"""Splits posts into parts that share neither a post nor a text, and says in one word what was split."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict

from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.csv_table import shown
from lightning_hpo.data.split import Split
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = ["Split", "check_disjoint", "fingerprint", "split_posts"]


def split_posts(posts: Mapping[str, str], *, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """Draw the parts by groups of posts with the same text.

    A group's place is a hash of the seed and its text, so neither the order of the file nor a few more posts
    reshuffle the rest.

    Args:
        posts: Text by post id.
        seed: Seed of the data, not of a trial.
        val_fraction: Share of the posts for validation.
        test_fraction: Share of the posts for the test.

    Raises:
        InputError: A fraction is not between 0 and 1, or a part would be empty.
    """
    _refuse_fractions(val_fraction, test_fraction)
    groups: dict[str, list[str]] = {}
    for post_id, text in posts.items():
        groups.setdefault(_normalised(text), []).append(post_id)
    drawn = sorted(groups, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "replace")).digest())
    part_of: dict[str, str] = {}
    wanted = {"test": test_fraction * len(posts), "val": val_fraction * len(posts)}
    for text in drawn:
        # A part takes groups until half a post or less is missing.
        part = next((name for name, missing in wanted.items() if missing > 0.5), "train")
        wanted[part] = wanted.get(part, 0.0) - len(groups[text])
        part_of.update(dict.fromkeys(groups[text], part))
    parts = {name: tuple(post for post in posts if part_of[post] == name) for name in ("train", "val", "test")}
    _refuse_empty(parts, len(groups))
    return Split(**parts)


def check_disjoint(posts: Mapping[str, str], split: Split) -> None:
    """Refuse a split that puts a post, or a text under two ids, in two parts.

    Raises:
        LightningHpoError: With the counts, and one that leaks.
    """
    parts = asdict(split)
    ids = sum(len(part) for part in parts.values()) - len(set().union(*parts.values()))
    owners: dict[str, dict[str, str]] = {}
    for part, post_ids in parts.items():
        for post_id in post_ids:
            owners.setdefault(_normalised(posts[post_id]), {}).setdefault(part, post_id)
    shared = [owner for owner in owners.values() if len(owner) > 1]
    if shared:
        one = " is that of ".join(f"post {shown(post_id)} in {part}" for part, post_id in shared[0].items())
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
    pairs = sorted((pair.post_id, pair.criterion, pair.met, pair.spans) for pair in corpus.pairs)
    parts = {name: sorted(part) for name, part in asdict(split).items()}
    content = json.dumps([sorted(corpus.posts.items()), sorted(corpus.criteria.items()), pairs, parts, more])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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
