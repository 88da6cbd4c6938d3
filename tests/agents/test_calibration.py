import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_hpo.agents.calibration import (
    best_met_threshold,
    best_null_threshold,
    best_temperature,
    fit_decision,
    folds,
)
from lightning_hpo.agents.post_scores import PostScores, text_keys

PAIRS = st.lists(
    # Log odds, whether the pair has evidence, and F1 of its best span.
    st.tuples(st.integers(-20, 20).map(lambda n: n / 4), st.booleans(), st.sampled_from([0.0, 0.3, 0.5, 1.0])),
    min_size=1,
    max_size=12,
)


def _tensors(pairs: list[tuple[float, bool, float]]) -> tuple[Tensor, Tensor, Tensor]:
    odds, met, f1 = zip(*pairs, strict=True)
    answered = [score if has else 0.0 for has, score in zip(met, f1, strict=True)]
    return torch.tensor(odds), torch.tensor(answered), torch.tensor([float(not has) for has in met])


def _score(threshold: float, odds: Tensor, answered: Tensor, unanswered: Tensor) -> float:
    return float(answered.where(odds <= threshold, unanswered).double().sum())


def _best_of_squad(pairs: list[tuple[float, bool, float]]) -> float:
    """Return the best score as in the evaluation script of SQuAD 2.0, if no two pairs have the same odds."""
    score = best = float(sum(not met for _, met, _ in pairs))
    for _, met, f1 in sorted(pairs):
        score += f1 if met else -1
        best = max(best, score)
    return best


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PAIRS)
def test_no_threshold_scores_higher(pairs: list[tuple[float, bool, float]]) -> None:
    tensors = _tensors(pairs)
    tried = [_score(number / 8, *tensors) for number in range(-60, 61)]
    threshold = best_null_threshold(*tensors)
    assert _score(threshold, *tensors) == pytest.approx(max(tried))
    assert (tensors[0] - threshold).abs().min() >= 0.12  # half a step of the odds from any pair
    if len({odds for odds, _, _ in pairs}) == len(pairs):
        assert max(tried) == pytest.approx(_best_of_squad(pairs))


def test_example_worked_by_hand() -> None:
    # Gains, by odds: evidence found (+1), none (-1), evidence half found (+.5), evidence found (+1), none (-1).
    pairs = [(2.0, False, 0.0), (-3.0, True, 1.0), (-2.0, False, 0.0), (0.0, True, 0.5), (1.0, True, 1.0)]
    assert best_null_threshold(*_tensors(pairs)) == 1.5
    assert _score(1.5, *_tensors(pairs)) == 3.5  # of 5; with no answer 2, with all answers 2.5


def test_middle_of_the_widest_of_the_best_gaps_is_chosen() -> None:
    pairs = [(0.0, True, 1.0), (1.0, True, 0.0), (9.0, True, 0.0), (9.5, False, 0.0)]
    assert best_null_threshold(*_tensors(pairs)) == 5.0


def test_pairs_without_a_span_are_ignored() -> None:
    pairs = [(math.inf, False, 0.0), (1.0, True, 1.0), (math.inf, True, 0.0)]
    assert best_null_threshold(*_tensors(pairs)) == 2.0
    assert best_null_threshold(*_tensors(pairs[:1])) == 0.0


def _macro_f1(threshold: float, log_odds: Tensor, met: Tensor) -> float:
    return PostScores.of_labels(range(len(met)), log_odds >= threshold, met).score


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-10, 10).map(lambda n: n / 2), st.booleans()), min_size=2, max_size=14))
def test_no_threshold_of_a_criterion_scores_higher(pairs: list[tuple[float, bool]]) -> None:
    log_odds, met = torch.tensor([odds for odds, _ in pairs]), torch.tensor([label for _, label in pairs])
    threshold = best_met_threshold(log_odds, met)
    if met.all() or not met.any():
        assert threshold == 0.0
    else:
        tried = [_macro_f1(number / 4 + 0.125, log_odds, met) for number in range(-44, 44)]
        assert _macro_f1(threshold, log_odds, met) == pytest.approx(max(tried))
        assert (log_odds - threshold).abs().min() >= 0.24  # half a step from any pair


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_temperature_of_drawn_labels_is_found(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    log_odds = 3 * torch.randn(20_000, generator=generator)
    met = torch.rand(20_000, generator=generator) < (log_odds / true).sigmoid()
    assert best_temperature(log_odds, met) == pytest.approx(true, rel=0.05)


def test_temperature_is_bounded() -> None:
    log_odds = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    assert best_temperature(log_odds, log_odds > 0) == 0.05
    assert best_temperature(log_odds, log_odds < 0) == 20.0
    assert best_temperature(log_odds, log_odds < 9) == 1.0
    assert best_temperature(log_odds[:0], log_odds[:0] > 0) == 1.0


def test_threshold_of_a_criterion_is_drawn_towards_the_shared_one() -> None:
    """The pairs of B are all higher by 8: with few of them met, B has the shared threshold."""
    names = {1: "A", 2: "B"}
    own: dict[int, float] = {}
    for positives in (9, 10, 1000):
        log_odds = torch.cat([torch.linspace(-2, 2, 4000), torch.linspace(6, 10, 2 * positives)])
        met = torch.cat([torch.linspace(-2, 2, 4000) >= 0, torch.linspace(6, 10, 2 * positives) >= 8])
        criteria = [1] * 4000 + [2] * (2 * positives)
        decision = fit_decision("per_criterion", log_odds, met, criteria, names)
        shared = best_met_threshold(log_odds, met)
        odds = {
            name: float(torch.tensor(value, dtype=torch.float64).logit()) * decision.temperature
            for name, value in decision.by_criterion.items()
        }
        if "B" in odds:
            own[positives] = odds["B"]
            expected = shared + positives / (positives + 20) * (8 - shared)
            assert own[positives] == pytest.approx(expected, abs=0.3)
    assert 9 not in own
    assert own[10] < own[1000]
    assert not fit_decision("fitted", log_odds, met, criteria, names).by_criterion
    assert fit_decision("fixed", log_odds, met, criteria, names).threshold == 0.5


@pytest.mark.parametrize("posts", [1, 3, 5, 23])
def test_folds_keep_the_pairs_of_a_post_together(posts: int) -> None:
    keys = torch.tensor(text_keys([f"p{number % posts}" for number in range(100)]))
    masks = folds(keys)
    assert torch.stack(masks).sum(dim=0).eq(1).all()
    sizes = [len(set(keys[own].tolist())) for own in masks]
    assert len(masks) == min(5, posts)
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == posts
