import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.agents.span_metrics import Span, SpanF1, span_f1

SPANS = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def _brute_force(predicted: Span, gold: list[Span]) -> float:
    found = []
    for span in gold:
        one, other = set(range(*predicted)), set(range(*span))
        shared = len(one & other)
        precision, recall = shared / len(one), shared / len(other)
        found.append(2 * precision * recall / (precision + recall) if shared else 0.0)
    return max(found)


@given(SPANS, st.lists(SPANS, min_size=1, max_size=4))
def test_f1_is_that_of_the_sets_of_characters(predicted: Span, gold: list[Span]) -> None:
    assert span_f1(predicted, gold) == pytest.approx(_brute_force(predicted, gold))


def test_no_evidence_is_right_or_wrong() -> None:
    assert span_f1(None, []) == 1.0
    assert span_f1(None, [(0, 4)]) == 0.0
    assert span_f1((0, 4), []) == 0.0


def test_an_empty_answer_is_no_division_by_zero() -> None:
    assert span_f1((3, 3), [(3, 3)]) == 0.0


def test_the_metric_is_the_mean_over_all_batches() -> None:
    metric = SpanF1()
    metric.update([None, (0, 4)], [[], [(0, 4), (9, 12)]])
    metric.update([(0, 4)], [[(2, 6)]])
    assert float(metric.compute()) == pytest.approx((1 + 1 + 0.5) / 3)
    metric.reset()
    metric.update([None], [[(0, 1)]])
    assert float(metric.compute()) == 0.0


def test_no_pairs_score_nothing() -> None:
    metric = SpanF1()
    metric.update([], [])
    assert float(metric.compute()) == 0.0


def test_answers_and_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        SpanF1().update([None], [])
