import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_hpo.agents.spans.calibration import best_threshold

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
    threshold = best_threshold(*tensors)
    assert _score(threshold, *tensors) == pytest.approx(max(tried))
    assert (tensors[0] - threshold).abs().min() >= 0.12  # half a step of the odds from any pair
    if len({odds for odds, _, _ in pairs}) == len(pairs):
        assert max(tried) == pytest.approx(_best_of_squad(pairs))


def test_example_worked_by_hand() -> None:
    # Gains, by odds: evidence found (+1), none (-1), evidence half found (+.5), evidence found (+1), none (-1).
    pairs = [(2.0, False, 0.0), (-3.0, True, 1.0), (-2.0, False, 0.0), (0.0, True, 0.5), (1.0, True, 1.0)]
    assert best_threshold(*_tensors(pairs)) == 1.5
    assert _score(1.5, *_tensors(pairs)) == 3.5  # of 5; with no answer 2, with all answers 2.5


def test_middle_of_the_widest_of_the_best_gaps_is_chosen() -> None:
    pairs = [(0.0, True, 1.0), (1.0, True, 0.0), (9.0, True, 0.0), (9.5, False, 0.0)]
    assert best_threshold(*_tensors(pairs)) == 5.0


def test_pairs_without_a_span_are_ignored() -> None:
    pairs = [(math.inf, False, 0.0), (1.0, True, 1.0), (math.inf, True, 0.0)]
    assert best_threshold(*_tensors(pairs)) == 2.0
    assert best_threshold(*_tensors(pairs[:1])) == 0.0
