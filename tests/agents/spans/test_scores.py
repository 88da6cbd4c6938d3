import math

import pytest
import torch

from lightning_hpo.agents.spans.decoding import PairSpans
from lightning_hpo.agents.spans.metrics import Span
from lightning_hpo.agents.spans.scores import SpanScores

Answers = list[tuple[int, int, float]]  # start, end and score, best first; the same number for each pair


def _spans(pairs: list[Answers], whole: bool = False) -> PairSpans:
    start, end, score = (torch.tensor([[answer[side] for answer in row] for row in pairs]) for side in range(3))
    return PairSpans(start, end, score.float(), torch.full_like(start, whole).bool())


def _scores(
    pairs: list[Answers], gold: list[list[Span]], threshold: float = 0.0, whole: bool = False
) -> dict[str, float]:
    metric = SpanScores(threshold)
    for number, (pair, right) in enumerate(zip(pairs, gold, strict=True)):  # one batch for each pair
        metric.update(_spans([pair], whole), [right], [f"p{number % 2}"], [f"c{number}"])
    found = {name: float(value) for name, value in metric.compute().items()}
    assert metric.post_scores is not None
    assert metric.post_scores.score == pytest.approx(found["metric"], nan_ok=True)
    return found


def test_scores_of_a_split_worked_by_hand() -> None:
    pairs: list[Answers] = [
        [(0, 4, 3.0)],  # found
        [(4, 14, 1.0)],  # precision 4 / 10, recall 4 / 8, F1 4 / 9
        [(0, 9, -1.0)],  # missed
        [(0, 9, -2.0)],  # correctly "no evidence"
        [(5, 9, 0.5)],  # answered, but there is no evidence
    ]
    scores = _scores(pairs, [[(0, 4)], [(0, 8)], [(0, 9)], [], []])
    assert scores == pytest.approx(
        {
            "metric": (1 + 4 / 9 + 0 + 1 + 0) / 5,
            "exact": 2 / 5,
            "f1_answerable": (1 + 4 / 9) / 3,
            "f1_null": 1 / 2,
            "answer_precision": (1 + 0.4 + 0) / 3,
            # Five answers and five pieces of evidence; "no evidence" counts as one.
            "all_precision": (1 + 0.4 + 0 + 1 + 0) / 5,
            "all_recall": (1 + 0.5 + 0 + 1 + 0) / 5,
            "all_f1": 2 * 0.48 * 0.5 / 0.98,
            "null_accuracy": 3 / 5,
            "positive": 3 / 5,
            "whole": 0.0,
        }
    )


def test_metric_uses_the_first_answer_and_all_f1_uses_all() -> None:
    pair: Answers = [(0, 4, 3.0), (20, 28, 2.0), (50, 60, -1.0)]
    gold: list[list[Span]] = [[(0, 4), (20, 24), (90, 94)]]
    two = _scores([pair], gold)
    assert (two["metric"], two["exact"]) == (1.0, 1.0)
    assert (two["all_precision"], two["all_recall"]) == pytest.approx((1.5 / 2, 2 / 3))
    one = _scores([[(*span[:2], score) for span, score in zip(pair, (3.0, -1.0, -2.0), strict=True)]], gold)
    assert one["metric"] == 1.0
    assert (one["all_precision"], one["all_recall"]) == pytest.approx((1.0, 1 / 3))
    three = _scores([pair], gold, threshold=1.0)
    assert (three["all_precision"], three["all_recall"]) == pytest.approx((1.5 / 3, 2 / 3))


def test_threshold_can_be_set_before_compute() -> None:
    metric = SpanScores(0.0)
    pairs: list[Answers] = [[(0, 4, -2.0)], [(0, 4, -3.0)]]
    assert _scores(pairs, [[(0, 4)], []])["metric"] == 0.5
    metric.update(_spans(pairs), [[(0, 4)], []], ["a", "b"], ["A", "A"])
    metric.threshold = metric.best_threshold()
    assert metric.threshold == 2.5
    assert float(metric.compute()["metric"]) == 1.0
    metric.reset()
    metric.update(_spans([[(0, 4, 1.0)]]), [[]], ["a"], ["A"])
    assert float(metric.compute()["metric"]) == 0.0


def test_f1_without_pairs_of_its_kind_is_zero() -> None:
    assert _scores([[(0, 4, 1.0)]], [[(0, 4)]])["f1_null"] == 0.0
    assert _scores([[(0, 4, 1.0)]], [[]])["f1_answerable"] == 0.0


def test_whole_counts_given_answers_only() -> None:
    assert _scores([[(0, 4, 1.0)]], [[]], whole=True)["whole"] == 1.0
    assert _scores([[(0, 4, -1.0)]], [[]], whole=True)["whole"] == 0.0


@pytest.mark.parametrize("threshold", [0.0, 1e38])
def test_metric_is_nan_if_logits_are_not_finite(threshold: float) -> None:
    pairs: list[Answers] = [[(0, 4, 1.0)], [(0, 4, math.nan)]]
    assert math.isnan(_scores(pairs, [[(0, 4)], []], threshold)["metric"])


def test_answers_and_gold_must_have_the_same_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        SpanScores(0.0).update(_spans([[(0, 1, 0.0)]]), [], [], [])


@pytest.mark.parametrize(("share", "found"), [(0.12, 0.02), (0.12, 0.5), (0.5, 0.95)])
def test_calibrated_model_that_cannot_tell_null_is_seldom_better_than_a_constant_answer(
    share: float, found: float
) -> None:
    """Scored with the threshold that was fitted to the same pairs, it is at least as good in every draw."""
    draws, pairs = 100, 120
    generator = torch.Generator().manual_seed(0)
    posts = [f"p{number // 4}" for number in range(pairs)]
    better = flattered = 0
    for _ in range(draws):
        odds = torch.randn(pairs, 1, generator=generator)
        has = torch.rand(pairs, generator=generator) < share
        right = torch.rand(pairs, generator=generator) < found  # the span that it finds is the evidence
        spans = PairSpans(torch.zeros(pairs, 1).long(), torch.ones(pairs, 1).long(), -odds, torch.zeros(pairs, 1))
        gold: list[list[Span]] = [
            [(0, 1) if hit else (5, 6)] if evidence else [] for evidence, hit in zip(has, right, strict=True)
        ]
        every = [float(hit) if evidence else 0.0 for evidence, hit in zip(has, right, strict=True)]
        constant = max(float((~has).float().mean()), sum(every) / pairs)  # nothing, or every first span
        metric = SpanScores(None)
        metric.update(spans, gold, posts, ["A"] * pairs)
        better += float(metric.compute()["metric"]) > constant + 1e-6
        metric.threshold = metric.best_threshold()
        metric._computed = None
        flattered += float(metric.compute()["metric"]) >= constant - 1e-6
    assert flattered == draws
    assert better <= 0.3 * draws


def test_score_by_sentences_counts_no_evidence_as_the_score_by_characters_does() -> None:
    pairs: list[Answers] = [[(0, 4, 3.0)], [(0, 4, -1.0)], [(0, 4, -1.0)], [(0, 4, 1.0)]]
    gold: list[list[Span]] = [[(0, 11)], [(0, 11)], [], []]
    metric = SpanScores(0.0)
    keys = [f"p{number}" for number in range(4)]
    metric.update(_spans(pairs), gold, keys, ["A"] * 4, ["I am tired. I cannot sleep."] * 4)
    scores = metric.compute()
    assert float(scores["f1_sentence"]) == (1 + 0 + 1 + 0) / 4
    assert float(scores["metric"]) == pytest.approx((8 / 15 + 0 + 1 + 0) / 4)


def test_score_by_sentences_needs_texts() -> None:
    assert "f1_sentence" not in _scores([[(0, 4, 1.0)]], [[(0, 4)]])
