import math
import statistics
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.refit.intervals import Estimate
from lightning_hpo.refit.seed_scores import SeedScores, compare, rank
from lightning_hpo.storage.objective import Objective

SCORES = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20)


def test_estimate_equals_hand_calculation() -> None:
    found = Estimate.of([0.60, 0.62, 0.64, 0.66, 0.68])
    assert found.mean == pytest.approx(0.64)
    assert found.std == pytest.approx(math.sqrt(0.004 / 4))
    # 97.5 % quantile of Student's t with four degrees of freedom, from a printed table: 2.776.
    half = 2.776 * found.std / math.sqrt(5)
    assert (found.low, found.high) == pytest.approx((0.64 - half, 0.64 + half), abs=1e-5)
    assert found.excludes_zero


@given(SCORES, st.floats(-1.0, 1.0))
def test_estimate_shifts_with_its_values(scores: list[float], shift: float) -> None:
    found, moved = Estimate.of(scores), Estimate.of([score + shift for score in scores])
    assert found.low <= found.mean <= found.high
    assert found.std == pytest.approx(statistics.stdev(scores))
    assert moved.mean == pytest.approx(found.mean + shift)
    assert moved.high - moved.low == pytest.approx(found.high - found.low, abs=1e-6)


def test_one_value_has_no_interval_and_no_value_has_no_mean() -> None:
    one, none = Estimate.of([0.5]), Estimate.of([])
    assert one.mean == 0.5
    assert [math.isnan(value) for value in (one.std, one.low, one.high, none.mean)] == [True] * 4
    assert not one.excludes_zero


def test_gap_is_searched_score_minus_mean() -> None:
    assert SeedScores(3, 0.70, {18: 0.66, 19: 0.64}).gap == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("scores", "seed"), [({18: 0.5, 19: 0.9, 20: 0.7}, 20), ({18: 0.5, 19: 0.9}, 18), ({18: 0.5, 17: 0.5}, 17)]
)
def test_median_seed(scores: dict[int, float], seed: int) -> None:
    assert SeedScores(3, 0.9, scores).median_seed == seed


@pytest.mark.parametrize(("mode", "order"), [("max", [1, 0, 2]), ("min", [0, 1, 2])])
def test_rank_sorts_by_mean_with_failed_candidates_last(mode: Literal["max", "min"], order: list[int]) -> None:
    candidates = [
        SeedScores(0, 0.9, {18: 0.5, 19: 0.5}),
        SeedScores(1, 0.8, {18: 0.4, 19: 0.7}),
        SeedScores(2, 0.7, {18: 0.9 if mode == "max" else 0.1}, {19: "train_loss is nan"}),
        SeedScores(3, 0.6, {}, {18: "out of memory", 19: "out of memory"}),
    ]
    assert [candidate.trial for candidate in rank(candidates, Objective("val_metric", mode))] == order


def test_compare_pairs_scores_by_seed() -> None:
    first = SeedScores(0, 0.9, {18: 0.50, 19: 0.70, 20: 0.90, 21: 0.1})
    second = SeedScores(1, 0.9, {18: 0.48, 19: 0.68, 20: 0.881})
    found = compare(first, second)
    assert found.count == 3
    assert found.mean == pytest.approx(0.059 / 3)
    assert found.excludes_zero  # although each candidate varies over half of the scale
    assert not compare(second, SeedScores(2, 0.9, {18: 0.5, 19: 0.6, 20: 0.9})).excludes_zero
