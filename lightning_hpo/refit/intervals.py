"""Intervals of scores that were measured with several seeds on a sample of posts.

A score varies with the seed and with the posts that measure it. Student's interval over the seeds holds for these posts
only: what a config does well on them by chance is the same for every seed. These intervals therefore add both
variances, which is slightly conservative (Owen 2007, The pigeonhole bootstrap), with the degrees of freedom of
Satterthwaite (1946). The variance over posts comes from a bootstrap.

Each seed's score is that of its best epoch. An epoch that is best on the posts that score it is partly lucky, so the
epoch is chosen on four fifths of the posts and scored on the others, for each fifth.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lightning_hpo.agents.post_scores import FORMULAS, PostScores, Sums

__all__ = ["Estimate", "Run", "estimate"]

_CONFIDENCE = 0.95
_DRAWS = 1000
_FOLDS = 5

Run = Sequence[PostScores]
"""Scores of one training: one for each validation."""


@dataclass(frozen=True)
class Estimate:
    """Mean of a score, or of a difference of scores, with its confidence interval.

    Args:
        mean: The mean over the seeds; NaN without values.
        std: The standard deviation over the seeds; NaN for fewer than two.
        low: Lower end of the 95 % confidence interval; NaN if there is none.
        high: Its upper end.
        count: Number of seeds.
        posts: Number of posts whose choice the interval covers; 0 if it holds for these posts only.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int
    posts: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Return Student's interval of values that were all measured on the same posts."""
        return cls._of(values, 0.0, 0)

    @classmethod
    def _of(cls, values: Sequence[float], variance: float, posts: int) -> "Estimate":
        """Return the interval, given the variance of the mean over samples of posts."""
        count = len(values)
        mean = float(np.mean(values)) if count else math.nan
        std = float(np.std(values, ddof=1)) if count > 1 else math.nan
        if count < 2 and not posts:
            return cls(mean, std, math.nan, math.nan, count)
        parts = [(variance, posts - 1)] if posts > 1 else []
        parts += [(std**2 / count, count - 1)] if count > 1 else []
        total = sum(part for part, _ in parts)
        if not parts:
            return cls(mean, std, math.nan, math.nan, count, posts)
        freedom = 1 / sum((part / total) ** 2 / degrees for part, degrees in parts) if total else 1.0
        half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, freedom)) * math.sqrt(total)
        return cls(mean, std, mean - half, mean + half, count, posts)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Estimate":
        """Return the estimate that `as_json` has written."""
        return cls(**{"std": math.nan, "low": math.nan, "high": math.nan, **values})

    def as_json(self) -> dict[str, Any]:
        """Return the values by name, without NaN, which JSON does not have."""
        return {name: value for name, value in asdict(self).items() if not math.isnan(value)}

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval. False if there is no interval."""
        return self.low > 0 or self.high < 0


def estimate(runs: Sequence[Run], others: Sequence[Run] | None = None) -> Estimate | None:
    """Estimate the mean score of trainings that differ in their seed only, or their lead over others.

    Args:
        runs: Scores of each training.
        others: Scores of as many other trainings, each with the seed of its counterpart; or of one model, whose lead
            over it is wanted. None for the score itself.

    Returns:
        The estimate; None if scores are missing, or are not over the same posts.
    """
    every = [*runs, *(others or [])]
    if not runs or not all(every) or not _are_comparable([each for run in every for each in run]):
        return None
    count = len(every[0][0].keys)
    # The first row is the sample itself.
    weights = np.vstack([np.ones(count), _draws(count)])
    values = np.stack([_scores(run, weights) for run in runs], axis=1)
    if others is not None:
        values = values - np.stack([_scores(run, weights) for run in others], axis=1)
    variance = float(values[1:].mean(axis=1).var(ddof=1)) if count > 1 else 0.0
    return Estimate._of(values[0].tolist(), variance, count)


def _are_comparable(scores: Sequence[PostScores]) -> bool:
    first = scores[0]
    return all(np.array_equal(each.keys, first.keys) and each.formula == first.formula for each in scores)


def _draws(posts: int) -> NDArray[np.float64]:
    """Return how often each bootstrap sample holds each post, [draws, posts]; always the same."""
    generator = np.random.default_rng(posts)
    return generator.multinomial(posts, np.full(posts, 1 / posts), size=_DRAWS).astype(np.float64)


def _scores(run: Run, weights: NDArray[np.float64]) -> Sums:
    """Return the score of a training [draws] for each weighting of the posts, with cross-fitted choice of the epoch."""
    score = FORMULAS[run[0].formula]
    sums = np.stack([each.sums for each in run])  # [epochs, posts, k]
    if len(run) == 1:
        return score(weights @ sums[0])
    folds = np.arange(sums.shape[1]) % _FOLDS  # the keys, by which posts are sorted, are random
    every = np.einsum("dp,epk->dek", weights, sums)
    total = np.zeros((len(weights), sums.shape[2]))
    for fold in range(_FOLDS):
        own = folds == fold
        held = np.einsum("dp,epk->dek", weights[:, own], sums[:, own])
        best = score(every - held).argmax(axis=1)
        total += np.take_along_axis(held, best[:, None, None], axis=1)[:, 0]
    return score(total)
