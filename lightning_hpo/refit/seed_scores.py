"""Scores of one config with several seeds: what a search's best score is worth."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import stdtrit

__all__ = ["Estimate", "SeedScores", "compare", "rank"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean of independent figures.

    Args:
        mean: Their mean; NaN of none.
        std: Their standard deviation, with n - 1 below the line; NaN of fewer than two.
        low: Lower end of Student's 95% interval of the mean; NaN of fewer than two.
        high: Its upper end.
        count: How many figures there are.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Estimate":
        """The estimate from some figures, which are taken as drawn from a normal distribution."""
        count = len(figures)
        mean = statistics.fmean(figures) if count else math.nan
        if count < 2:
            return cls(mean, math.nan, math.nan, math.nan, count)
        std = statistics.stdev(figures)
        half = float(stdtrit(count - 1, (1 + _CONFIDENCE) / 2)) * std / math.sqrt(count)
        return cls(mean, std, mean - half, mean + half, count)

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval; never without one."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class SeedScores:
    """The scores of a trial's config with several seeds.

    Args:
        trial: Number of the trial in its study.
        searched: The score for which the search has chosen it.
        scores: Score by seed.
        failures: Why it failed, by seed.
    """

    trial: int
    searched: float
    scores: Mapping[int, float]
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def estimate(self) -> Estimate:
        """Mean, standard deviation and interval over the seeds."""
        return Estimate.of(list(self.scores.values()))

    @property
    def gap(self) -> float:
        """The searched score less the mean: what the search has overrated by choosing the best of many."""
        return self.searched - self.estimate.mean

    @property
    def typical_seed(self) -> int:
        """The seed of the median score, the lower one of two: neither the luckiest nor the unluckiest."""
        ordered = sorted(self.scores, key=lambda seed: (self.scores[seed], seed))
        return ordered[(len(ordered) - 1) // 2]


def rank(candidates: Sequence[SeedScores], *, maximizes: bool) -> list[SeedScores]:
    """The candidates with a score by their mean, the best first; those of which a seed failed after all others."""
    sign = -1 if maximizes else 1
    scored = [candidate for candidate in candidates if candidate.scores]
    return sorted(scored, key=lambda each: (bool(each.failures), sign * each.estimate.mean, each.trial))


def compare(first: SeedScores, second: SeedScores) -> Estimate:
    """How far the first is above the second, seed by seed: with the same seed both drew the same luck."""
    shared = [seed for seed in first.scores if seed in second.scores]
    return Estimate.of([first.scores[seed] - second.scores[seed] for seed in shared])
