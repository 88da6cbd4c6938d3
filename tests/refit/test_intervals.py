"""Intervals over seeds and posts, with simulated trainings whose true score is known."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_hpo.agents.post_scores import PostScores, text_keys
from lightning_hpo.refit.intervals import Estimate, Run, estimate

_SEEDS, _PAIRS_A_POST = 5, 9


def _labels(generator: np.random.Generator, posts: int) -> NDArray[np.bool_]:
    return generator.random((posts, _PAIRS_A_POST)) < 0.1


class _Config:
    """Trainings of one config: log odds of a label, what the config thinks of a pair, and what each seed does."""

    def __init__(self, generator: np.random.Generator, met: NDArray[np.bool_]) -> None:
        self._generator, self._met = generator, met
        self._own = generator.normal(size=met.shape)

    def run(self, epochs: int = 1) -> Run:
        """Return the scores of a training with a new seed, whose epochs are equally good."""
        found = []
        for _ in range(epochs):
            odds = 4.0 * self._met - 2.5 + self._own + self._generator.normal(size=self._met.shape)
            found.append(_scores(self._met, odds > 0))
        return found


def _scores(met: NDArray[np.bool_], answers: NDArray[np.bool_]) -> PostScores:
    keys = np.repeat(text_keys([f"p{post}" for post in range(len(met))]), met.shape[1])
    return PostScores.of_labels(keys, answers.ravel(), met.ravel())


def _truth() -> float:
    """Return the score that every config has over all posts there are."""
    generator = np.random.default_rng(0)
    met = _labels(generator, 50_000)
    return _Config(generator, met).run()[0].score


def test_equal_configs_differ_significantly_in_few_draws_and_the_interval_holds_the_true_score() -> None:
    posts, draws, truth = 45, 200, _truth()
    generator = np.random.default_rng(posts)
    false_alarms = covered = students_alarms = students_covered = 0
    for _ in range(draws):
        met = _labels(generator, posts)
        first, second = ([config.run() for _ in range(_SEEDS)] for config in (_Config(generator, met) for _ in "ab"))
        difference, own = estimate(first, second), estimate(first)
        assert difference is not None
        assert own is not None
        false_alarms += difference.excludes_zero
        covered += own.low <= truth <= own.high
        values = [[run[0].score for run in runs] for runs in (first, second)]
        students = Estimate.of([one - other for one, other in zip(*values, strict=True)])
        alone = Estimate.of(values[0])
        students_alarms += students.excludes_zero
        students_covered += alone.low <= truth <= alone.high
    assert false_alarms <= 0.07 * draws
    assert covered >= 0.92 * draws
    # Without the posts, luck is called significant, and the interval is too narrow.
    assert students_alarms >= 0.12 * draws
    assert students_covered <= 0.85 * draws


def test_the_best_of_many_equal_epochs_is_not_rewarded() -> None:
    generator = np.random.default_rng(1)
    truth, best, found = _truth(), [], []
    for _ in range(40):
        met = _labels(generator, 45)
        run = _Config(generator, met).run(epochs=10)
        best.append(max(each.score for each in run))
        made = estimate([run, run])
        assert made is not None
        found.append(made.mean)
    assert np.mean(best) > truth + 0.015
    assert abs(np.mean(found) - truth) < 0.012


def test_a_real_difference_is_found() -> None:
    generator = np.random.default_rng(2)
    met = _labels(generator, 220)
    config = _Config(generator, met)
    runs = [config.run() for _ in range(_SEEDS)]
    never = _scores(met, np.zeros_like(met))
    found = estimate(runs, [[never]] * _SEEDS)
    assert found is not None
    assert found.excludes_zero
    assert found.mean == pytest.approx(np.mean([run[0].score for run in runs]) - never.score)
    assert (found.count, found.posts) == (5, 220)


def test_one_training_has_the_interval_of_its_posts() -> None:
    generator = np.random.default_rng(3)
    values = generator.random(400)
    scores = PostScores.of_means(text_keys([f"p{number}" for number in range(400)]), values)
    found = estimate([[scores]])
    assert found is not None
    assert found.mean == pytest.approx(values.mean())
    assert math.isnan(found.std)
    assert found.high - found.mean == pytest.approx(1.966 * values.std() / 20, rel=0.05)
    again = Estimate.of_json(json.loads(json.dumps(found.as_json(), allow_nan=False)))
    assert str(again) == str(found)


def test_scores_that_are_missing_or_of_other_posts_give_no_interval() -> None:
    one, other = (PostScores.of_means(text_keys(names), [0.5, 0.6]) for names in (["a", "b"], ["a", "c"]))
    labels = PostScores.of_labels(text_keys(["a", "b"]), [1, 0], [1, 1])
    assert estimate([]) is None
    assert estimate([[one], []]) is None
    assert estimate([[one], [other]]) is None
    assert estimate([[one]], [[labels]]) is None
    assert estimate([[one]], [[one]]) is not None
