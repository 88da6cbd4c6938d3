import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpo.agents.pair_scores import PairScores

Rows = list[tuple[float, int, str]]


def _scores(*batches: Rows) -> dict[str, float]:
    scores = PairScores()
    for batch in batches:
        probabilities, met, criteria = zip(*batch, strict=True)
        scores.update(torch.tensor(probabilities), torch.tensor(met), criteria)
    return {name: float(value) for name, value in scores.compute().items()}


def test_scores_worked_by_hand() -> None:
    found = _scores(
        [(0.9, 1, "SAD"), (0.6, 0, "SAD")],
        [(0.5, 1, "TIRED"), (0.2, 0, "TIRED"), (0.1, 1, "TIRED")],
    )
    assert found == pytest.approx(
        {
            # Of the 3 x 2 comparisons of a met and an unmet pair, 0.9 wins two, 0.5 wins one, 0.1 wins none.
            "auroc": 3 / 6,
            # Met at ranks 1, 3 and 5.
            "average_precision": (1 / 1 + 2 / 3 + 3 / 5) / 3,
            # 2 true positives, 1 false negative, 1 true negative, 1 false positive.
            "mcc": (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2),
            "f1_SAD": 2 / 3,
            "f1_TIRED": 2 / 3,
            "criteria_f1": 2 / 3,
        },
        abs=1e-6,
    )


def test_criterion_with_one_class_is_nan_and_excluded_from_the_mean() -> None:
    found = _scores([(0.9, 1, "SAD"), (0.6, 0, "SAD"), (0.9, 1, "ALWAYS"), (0.9, 0, "NEVER")])
    assert math.isnan(found["f1_ALWAYS"])
    assert math.isnan(found["f1_NEVER"])
    assert found["criteria_f1"] == found["f1_SAD"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("met", [0, 1])
def test_all_scores_are_nan_with_one_class_only(met: int) -> None:
    assert all(math.isnan(value) for value in _scores([(0.9, met, "SAD"), (0.2, met, "TIRED")]).values())


@pytest.mark.parametrize("answer", [0.1, 0.9])
def test_constant_answers_score_at_chance_level(answer: float) -> None:
    found = _scores([(answer, int(pair == 0), "SAD") for pair in range(8)])
    assert found["mcc"] == 0.0
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(1 / 8)


def test_criterion_can_have_any_name() -> None:
    assert {"f1_a_b_1", "f1_Müde-2.x"} <= set(_scores([(0.9, 1, "a b%1"), (0.1, 0, "Müde-2.x")]))


def test_reset_drops_the_criteria() -> None:
    scores = PairScores()
    scores.update(torch.tensor([0.9]), torch.tensor([1]), ["SAD"])
    scores.reset()
    scores.update(torch.tensor([0.9]), torch.tensor([1]), ["TIRED"])
    assert "f1_SAD" not in scores.compute()


@given(
    st.lists(
        st.tuples(st.floats(0, 1, width=32), st.integers(0, 1), st.sampled_from("ABC")), min_size=2, max_size=30
    ).filter(lambda rows: len({met for _, met, _ in rows}) == 2),
    st.integers(1, 29),
)
@settings(deadline=None, derandomize=True, database=None)
def test_scores_match_their_definitions_with_any_batches(rows: Rows, cut: int) -> None:
    found = _scores(*[part for part in (rows[:cut], rows[cut:]) if part])
    met, unmet = ([p for p, label, _ in rows if label == which] for which in (1, 0))
    wins = sum((one > other) + (one == other) / 2 for one in met for other in unmet)
    assert found["auroc"] == pytest.approx(wins / len(met) / len(unmet), abs=1e-5)
    right, missed, wrong = (
        sum((p >= 0.5) == answer and label == truth for p, label, _ in rows)
        for answer, truth in ((True, 1), (False, 1), (True, 0))
    )
    true_negatives = len(rows) - right - missed - wrong
    below = (right + wrong) * (right + missed) * (true_negatives + wrong) * (true_negatives + missed)
    mcc = (right * true_negatives - missed * wrong) / math.sqrt(below) if below else 0.0
    assert found["mcc"] == pytest.approx(mcc, abs=1e-5)
    for criterion in "ABC":
        own = [(p >= 0.5, label) for p, label, name in rows if name == criterion]
        if len({label for _, label in own}) == 2:
            both = sum(answer and label for answer, label in own)
            expected = 2 * both / (sum(answer for answer, _ in own) + sum(label for _, label in own))
            assert found[f"f1_{criterion}"] == pytest.approx(expected, abs=1e-5)
