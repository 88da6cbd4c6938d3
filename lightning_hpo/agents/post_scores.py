"""Scores by post: the sums from which a metric over any selection of posts follows."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.agents.arrays import read_arrays, write_arrays

__all__ = ["FORMULAS", "PostScores", "Sums", "read_post_scores", "score_of", "text_keys", "write_post_scores"]

Sums = NDArray[np.float64]


def text_keys(texts: Sequence[str]) -> list[int]:
    """Return a number for each text, the same in every process: devices gather tensors only, and tensors hold no text.

    Two different texts have the same number with a probability of 2 ** -64.
    """
    digests = {text: hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in set(texts)}
    return [int.from_bytes(digests[text], signed=True) for text in texts]


def _macro_f1(sums: Sums) -> Sums:
    """Return the mean of the F1 of "met" and of "not met". A class that neither labels nor answers have is left out."""
    hits, false_alarms, misses, rejections = np.moveaxis(sums, -1, 0)
    wrong = false_alarms + misses
    with np.errstate(invalid="ignore"):
        both = np.stack([2 * right / (2 * right + wrong) for right in (hits, rejections)])
    counted = ~np.isnan(both)
    result: Sums = np.where(counted, both, 0.0).sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    return result


def _mean(sums: Sums) -> Sums:
    total, count = np.moveaxis(sums, -1, 0)
    result: Sums = total / np.maximum(count, 1)
    return result


def _joint(sums: Sums) -> Sums:
    return (_macro_f1(sums[..., :4]) + _mean(sums[..., 4:])) / 2


FORMULAS: Mapping[str, Callable[[Sums], Sums]] = {"macro_f1": _macro_f1, "mean": _mean, "joint": _joint}
"""Metric of sums [..., k], by name: `macro_f1` of true and false positives, false and true negatives; `mean` of a total
and a count; `joint`, the mean of both, of the sums of the former and then of the latter."""
_COLUMNS = {"macro_f1": 4, "mean": 2, "joint": 6}
"""Number of sums k of each formula."""


@dataclass(frozen=True, eq=False)
class PostScores:
    """Sums over the pairs of each post, and the metric that they give.

    Args:
        keys: [posts] key of each post (see `text_keys`), ascending.
        sums: [posts, k] sums over its pairs.
        formula: Name of the metric in `FORMULAS`.
    """

    keys: NDArray[np.int64]
    sums: Sums
    formula: str

    @classmethod
    def of_pairs(cls, posts: Any, values: Any, formula: str) -> "PostScores":
        """Add the values of pairs by post.

        Args:
            posts: [P] key of the post of each pair.
            values: [P, k] values of each pair.
            formula: Name of the metric in `FORMULAS`.
        """
        keys, places = np.unique(np.asarray(posts, np.int64), return_inverse=True)
        sums = np.zeros((len(keys), np.asarray(values).shape[1]))
        np.add.at(sums, places, np.asarray(values, np.float64))
        return cls(keys, sums, formula)

    @classmethod
    def of_labels(cls, posts: Any, answers: Any, met: Any) -> "PostScores":
        """Return the scores of yes-no answers: `macro_f1`.

        Args:
            posts: [P] key of the post of each pair.
            answers: [P] whether the answer is "met".
            met: [P] whether the post meets the criterion.
        """
        said, true = np.asarray(answers, bool), np.asarray(met, bool)
        return cls.of_pairs(posts, np.stack([said & true, said & ~true, ~said & true, ~said & ~true], 1), "macro_f1")

    @classmethod
    def of_means(cls, posts: Any, scores: Any) -> "PostScores":
        """Return the scores of pairs [P] that have a score each, whose mean is the metric.

        Args:
            posts: [P] key of the post of each pair.
            scores: [P] score of each pair.
        """
        values = np.asarray(scores, np.float64)
        return cls.of_pairs(posts, np.stack([values, np.ones_like(values)], 1), "mean")

    @classmethod
    def joint(cls, labels: "PostScores", means: "PostScores") -> "PostScores":
        """Return the scores whose metric is the mean of those of `of_labels` and of `of_means`.

        A post that only one of them has counts in its metric only.
        """
        keys = np.union1d(labels.keys, means.keys)
        sums = np.zeros((len(keys), 6))
        sums[np.searchsorted(keys, labels.keys), :4] = labels.sums
        sums[np.searchsorted(keys, means.keys), 4:] = means.sums
        return cls(keys, sums, "joint")

    @property
    def score(self) -> float:
        """The metric over all posts."""
        return float(FORMULAS[self.formula](self.sums.sum(axis=0)))


def score_of(scores: PostScores | float) -> float:
    """Return the metric of scores by post, or a metric itself."""
    return scores.score if isinstance(scores, PostScores) else float(scores)


def write_post_scores(path: Path, scores: Mapping[str, PostScores]) -> None:
    """Write scores by their names to a file, which holds no text."""
    arrays: dict[str, NDArray[Any]] = {"names": np.array(list(scores), dtype=np.str_)}
    for place, each in enumerate(scores.values()):
        arrays |= {f"keys_{place}": each.keys, f"sums_{place}": each.sums, f"formula_{place}": np.array(each.formula)}
    write_arrays(path, arrays)


def read_post_scores(path: Path) -> dict[str, PostScores]:
    """Read what `write_post_scores` has written; nothing if the file is missing or damaged."""
    found = read_arrays(path) or {"names": np.array([])}
    try:
        scores = {
            str(name): PostScores(found[f"keys_{place}"], found[f"sums_{place}"], str(found[f"formula_{place}"]))
            for place, name in enumerate(np.atleast_1d(found["names"]))
        }
    except KeyError:
        return {}
    return scores if all(map(_is_valid, scores.values())) else {}


def _is_valid(scores: PostScores) -> bool:
    """Return whether the arrays of scores that were read from a file have their types and shapes."""
    keys, sums = scores.keys, scores.sums
    return (
        keys.dtype == np.int64
        and sums.dtype == np.float64
        and keys.ndim == 1
        and sums.shape == (len(keys), _COLUMNS.get(scores.formula))
        and bool((keys[1:] > keys[:-1]).all() and np.isfinite(sums).all())
    )
