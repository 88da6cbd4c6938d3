"""Scores of one config with several seeds: mean, confidence interval, ranking and paired comparison."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy import stats

from lightning_hpo.storage.objective import Objective

__all__ = ["Estimate", "SeedScores", "compare", "rank"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean of independent values with its confidence interval.

    Args:
        mean: The mean; NaN without values.
        std: The sample standard deviation; NaN for fewer than two values.
        low: Lower end of Student's 95 % confidence interval of the mean; NaN for fewer than two values.
        high: Its upper end.
        count: Number of values.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Estimate the mean of values from a normal distribution."""
        count = len(values)
        mean = statistics.fmean(values) if count else math.nan
        if count < 2:
            return cls(mean, math.nan, math.nan, math.nan, count)
        # Not `stats.t.interval`, which is NaN for equal values.
        half = float(stats.t.ppf((1 + _CONFIDENCE) / 2, count - 1) * stats.sem(values))
        return cls(mean, statistics.stdev(values), mean - half, mean + half, count)

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval. False if there is no interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class SeedScores:
    """Scores of the config of a trial with several seeds.

    Args:
        trial: Number of the trial in the searched study.
        searched: Score of the trial in the searched study.
        scores: Score by seed.
        failures: Reason by seed, for trials that failed.
    """

    trial: int
    searched: float
    scores: Mapping[int, float]
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def estimate(self) -> Estimate:
        """Mean, standard deviation and confidence interval over the seeds."""
        return Estimate.of(list(self.scores.values()))

    @property
    def gap(self) -> float:
        """The searched score minus the mean: how much choosing the best of many trials overestimates a score."""
        return self.searched - self.estimate.mean

    @property
    def median_seed(self) -> int:
        """Seed of the median score. With an even number of seeds: of the lower of the two middle scores."""
        ordered = sorted(self.scores, key=lambda seed: (self.scores[seed], seed))
        return ordered[(len(ordered) - 1) // 2]


def rank(candidates: Sequence[SeedScores], objective: Objective) -> list[SeedScores]:
    """Sort the candidates that have a score by their mean, the best first. Candidates with failed seeds come last."""
    scored = [candidate for candidate in candidates if candidate.scores]
    return sorted(scored, key=lambda each: (bool(each.failures), objective.sort_key(each.estimate.mean), each.trial))


def compare(first: SeedScores, second: SeedScores) -> Estimate:
    """Estimate the mean difference of two candidates over their shared seeds, which cancels effects of the seed."""
    shared = [seed for seed in first.scores if seed in second.scores]
    return Estimate.of([first.scores[seed] - second.scores[seed] for seed in shared])
