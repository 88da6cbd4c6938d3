"""Metrics of one pair against the published definitions, on examples worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.agents.spans.metrics import Span, partial_matches, sentence_f1, span_exact, span_f1

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
def test_f1_matches_the_sets_of_characters(predicted: Span, gold: list[Span]) -> None:
    assert span_f1(predicted, gold) == pytest.approx(_brute_force(predicted, gold))


@pytest.mark.parametrize(
    ("predicted", "gold", "f1", "exact"),
    [
        # SQuAD 2.0: "no evidence" scores 1 if it is correct, else 0.
        (None, [], 1.0, 1.0),
        (None, [(0, 4)], 0.0, 0.0),
        ((0, 4), [], 0.0, 0.0),
        ((0, 4), [(0, 4)], 1.0, 1.0),
        # precision 4 / 10, recall 4 / 8: 2 * .4 * .5 / .9
        ((4, 14), [(0, 8)], 4 / 9, 0.0),
        # The best of several correct spans counts: F1 against the others is 0 and 2/3.
        ((4, 8), [(20, 24), (4, 12), (4, 8)], 1.0, 1.0),
        ((4, 8), [(20, 24), (4, 12)], 2 / 3, 0.0),
        ((4, 8), [(20, 24)], 0.0, 0.0),
    ],
)
def test_examples_worked_by_hand(predicted: Span | None, gold: list[Span], f1: float, exact: float) -> None:
    assert span_f1(predicted, gold) == pytest.approx(f1)
    assert span_exact(predicted, gold) == exact


def test_empty_answer_does_not_divide_by_zero() -> None:
    assert span_f1((3, 3), [(3, 3)]) == 0.0
    assert partial_matches([(3, 3)], [(3, 3)]) == ([0.0], [0.0])


def test_all_answers_are_matched_with_all_evidence() -> None:
    # The first answer covers 4 of the 8 characters of the first piece. The second covers the 4 characters of the second
    # piece and 1 of the first. The third covers none.
    precision, recall = partial_matches([(0, 4), (7, 15), (90, 92)], [(0, 8), (11, 15)])
    assert precision == [1.0, 0.5, 0.0]
    assert recall == [0.5, 1.5, 1.5]


def test_nothing_matches_without_evidence() -> None:
    assert partial_matches([(0, 4), (7, 9)], []) == ([0.0, 0.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ((3, 5), [(0, 11)], 1.0),  # a part of the sentence counts as the sentence
        ((3, 20), [(0, 11)], 2 / 3),  # precision 1 / 2
        ((3, 5), [(0, 24)], 2 / 3),  # recall 1 / 2
        ((13, 14), [(0, 11)], 0.0),
        ((13, 14), [(0, 11), (12, 24)], 1.0),  # the best of several correct spans counts
        ((13, 14), [], 0.0),
        ((-1, -1), [(0, 11)], 0.0),
    ],
)
def test_f1_by_sentences_worked_by_hand(answer: Span, gold: list[Span], f1: float) -> None:
    assert sentence_f1([answer], [gold], ["I am tired. I cannot sleep."]) == [pytest.approx(f1)]
