import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_hpo.agents.calibration import folds
from lightning_hpo.agents.pair_scores import PairScores, macro_f1
from lightning_hpo.agents.post_scores import text_keys

Rows = list[tuple[float, int, str]]


def _scores(*batches: Rows) -> dict[str, float]:
    """Return the scores of probabilities, labels and criteria. Each pair has a post of its own."""
    scores = PairScores()
    for number, batch in enumerate(batches):
        probabilities, met, criteria = zip(*batch, strict=True)
        log_odds = torch.tensor(probabilities, dtype=torch.float64).logit(eps=1e-12)
        scores.update(log_odds, torch.tensor(met), criteria, [f"{number}-{row}" for row in range(len(batch))])
    found = {name: float(value) for name, value in scores.compute().items()}
    assert scores.post_scores is not None
    assert scores.post_scores.score == pytest.approx(found["metric"], abs=1e-6)
    return found


def test_scores_worked_by_hand() -> None:
    found = _scores(
        [(0.9, 1, "SAD"), (0.6, 0, "SAD")],
        [(0.5, 1, "TIRED"), (0.2, 0, "TIRED"), (0.1, 1, "TIRED")],
    )
    assert found == pytest.approx(
        {
            # Of the 3 x 2 comparisons of a met and an unmet pair, 0.9 wins two, 0.5 wins one, 0.1 wins none.
            "metric": 2 / 3 / 2 + 1 / 2 / 2,
            "f1": 2 / 3,
            "precision": 2 / 3,
            "recall": 2 / 3,
            "positive": 3 / 5,
            # Each pair has a bin of its own: the distance between its probability and its label.
            "ece": (0.1 + 0.6 + 0.5 + 0.2 + 0.9) / 5,
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
    found = _scores([(0.9, met, "SAD"), (0.2, met, "TIRED")])
    assert all(math.isnan(found[name]) for name in ("auroc", "average_precision", "mcc", "f1_SAD", "criteria_f1"))


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
    scores.update(torch.tensor([0.9]), torch.tensor([1]), ["SAD"], ["a"])
    scores.reset()
    scores.update(torch.tensor([0.9]), torch.tensor([1]), ["TIRED"], ["a"])
    assert "f1_SAD" not in scores.compute()


@given(
    st.lists(
        st.tuples(st.integers(1, 999).map(lambda number: number / 1000), st.integers(0, 1), st.sampled_from("ABC")),
        min_size=2,
        max_size=30,
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


def _fitted(policy: Any, log_odds: Tensor, met: Tensor, criteria: Sequence[str], posts: Sequence[str]) -> PairScores:
    scores = PairScores(policy)
    scores.update(log_odds, met, criteria, posts)
    return scores


def test_fitted_threshold_never_sees_the_labels_that_it_scores() -> None:
    """Flipping the labels of one fold changes no answer to its pairs."""
    generator = torch.Generator().manual_seed(0)
    posts = [f"p{number // 2}" for number in range(200)]
    met = (torch.rand(200, generator=generator) < 0.3).long()
    log_odds = torch.randn(200, generator=generator) + met
    keys = torch.tensor(text_keys(posts))
    plain = _fitted("fitted", log_odds, met, ["A"] * 200, posts)
    answers = plain._decide(*plain._columns())[1]
    for own in folds(keys):
        flipped = met.where(~own, 1 - met)
        other = _fitted("fitted", log_odds, flipped, ["A"] * 200, posts)
        assert torch.equal(other._decide(*other._columns())[1][own], answers[own])
        assert other.fit() != plain.fit()  # the threshold of the checkpoint uses all labels


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_fitted_threshold_does_not_flatter(signal: float) -> None:
    """Scored on the pairs that the threshold was fitted to, the score is above the one on new pairs."""
    draws, pairs, new = 100, 400, 20_000
    generator = torch.Generator().manual_seed(0)
    posts, criteria = [f"p{number // 8}" for number in range(pairs)], ["A"] * pairs
    flattered = honest = 0.0
    for _ in range(draws):
        met = (torch.rand(pairs + new, generator=generator) < 0.147).long()
        log_odds = torch.randn(pairs + new, generator=generator) + signal * met
        scores = _fitted("fitted", log_odds[:pairs], met[:pairs], criteria, posts)
        found = float(scores.compute()["metric"])
        decision = scores.decision = scores.fit()
        scores._computed = None
        fitted = float(scores.compute()["metric"])
        true = float(macro_f1((decision.probabilities(log_odds[pairs:]) >= decision.threshold).long(), met[pairs:]))
        honest, flattered = honest + (found - true) / draws, flattered + (fitted - true) / draws
    assert abs(honest) < 0.01
    assert flattered > 0.02


def test_uncalibrated_score_is_logged_beside_the_fitted_one() -> None:
    met = torch.tensor([0, 0, 1, 1] * 10)
    log_odds = torch.tensor([-1.0, -0.5, -0.2, 0.9] * 10)
    scores = _fitted("fitted", log_odds, met, ["A"] * 40, [f"p{row}" for row in range(40)]).compute()
    assert float(scores["metric"]) == 1.0
    assert float(scores["metric_fixed"]) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert float(scores["ece"]) < 0.25 < float(_fitted("fixed", log_odds, met, ["A"] * 40, ["p"] * 40).compute()["ece"])


def test_one_post_only_is_scored_without_anything_to_fit_to() -> None:
    scores = _fitted("per_criterion", torch.tensor([1.0, -1.0]), torch.tensor([1, 0]), ["A", "B"], ["a", "a"])
    assert float(scores.compute()["metric"]) == 1.0
