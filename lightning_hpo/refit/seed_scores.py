"""Scores of one config with several seeds: mean, confidence interval, ranking and paired comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lightning_hpo.agents.post_scores import PostScores
from lightning_hpo.refit.intervals import Estimate, Run, estimate
from lightning_hpo.storage.objective import Objective

__all__ = ["SeedScores", "compare", "lead", "rank"]


@dataclass(frozen=True)
class SeedScores:
    """Scores of the config of a trial with several seeds.

    Args:
        trial: Number of the trial in the searched study.
        searched: Score of the trial in the searched study.
        scores: Score by seed.
        failures: Reason by seed, for trials that failed.
        runs: Scores by post by seed; without them, intervals hold for these validation posts only.
    """

    trial: int
    searched: float
    scores: Mapping[int, float]
    failures: Mapping[int, str] = field(default_factory=dict)
    runs: Mapping[int, Run] = field(default_factory=dict, repr=False)

    @cached_property
    def estimate(self) -> Estimate:
        """Mean, standard deviation and confidence interval."""
        found = estimate(self.runs_of(list(self.scores))) if len(self.scores) > 1 else None
        return found or Estimate.of(list(self.scores.values()))

    def runs_of(self, seeds: Sequence[int]) -> list[Run]:
        """Return the scores by post with these seeds; an empty list for a seed without them."""
        return [self.runs.get(seed, []) for seed in seeds]

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
    """Estimate the mean difference of two candidates over their shared seeds and posts, which cancels their effects."""
    shared = [seed for seed in first.scores if seed in second.scores]
    found = estimate(first.runs_of(shared), second.runs_of(shared)) if len(shared) > 1 else None
    return found or Estimate.of([first.scores[seed] - second.scores[seed] for seed in shared])


def lead(candidate: SeedScores, baseline: PostScores) -> Estimate | None:
    """Estimate the lead of a candidate over a baseline; None without scores by post or with one seed only."""
    seeds = list(candidate.scores)
    return estimate(candidate.runs_of(seeds), [[baseline]] * len(seeds)) if len(seeds) > 1 else None
