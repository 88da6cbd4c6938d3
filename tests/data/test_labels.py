import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.labels import IGNORED, WindowTarget, criteria_labels, evidence_labels, window_targets
from lightning_hpo.data.tokenization import TokenizedText

# Ten tokens of two characters each, and windows of five that share two.
POST = TokenizedText(np.zeros(10, np.int32), np.array([(3 * place, 3 * place + 2) for place in range(10)], np.int32))
RANGES = [(0, 5), (3, 8), (6, 10)]


def _span(first: int, last: int) -> tuple[int, int]:
    return 3 * first, 3 * last + 2


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([_span(0, 1)], [(1, ((0, 1),)), (0, ()), (0, ())]),
        ([_span(3, 4)], [(1, ((3, 4),)), (1, ((0, 1),)), (0, ())]),
        # Cut by the first window, whole in the second.
        ([_span(4, 5)], [(IGNORED, ()), (1, ((1, 2),)), (0, ())]),
        ([_span(9, 9), _span(6, 7)], [(0, ()), (1, ((3, 4),)), (1, ((3, 3), (0, 1)))]),
    ],
)
def test_label_depends_on_whether_evidence_is_whole(
    spans: list[tuple[int, int]], expected: list[tuple[int, object]]
) -> None:
    targets = window_targets(POST, RANGES, spans, met=True)
    assert [(target.label, target.spans) for target in targets] == expected
    assert not any(target.partial for target in targets)


def test_too_long_evidence_labels_the_window_with_its_largest_part() -> None:
    assert window_targets(POST, RANGES, [_span(2, 8)], met=True) == [
        WindowTarget(IGNORED),
        WindowTarget(1, ((0, 4),), partial=True),
        WindowTarget(IGNORED),
    ]


def test_without_evidence_all_windows_have_the_label_of_the_pair() -> None:
    assert window_targets(POST, RANGES, [], met=True) == [WindowTarget(1)] * 3
    assert window_targets(POST, RANGES, [], met=False) == [WindowTarget(0)] * 3


def test_label_tensors_of_both_agents() -> None:
    targets = [WindowTarget(1, ((2, 3), (0, 0))), WindowTarget(0), WindowTarget(IGNORED)]
    assert criteria_labels(targets, [6, 6, 6])["labels"].tolist() == [1, 0, -100]
    evidence = evidence_labels(targets, [6, 6, 6])
    assert evidence["start_positions"].tolist() == [[8, 6], [0, -100], [-100, -100]]
    assert evidence["end_positions"].tolist() == [[9, 6], [0, -100], [-100, -100]]


def test_duplicate_evidence_is_one_label() -> None:
    evidence = evidence_labels([WindowTarget(1, ((2, 3), (2, 3)))], [6])
    assert evidence["start_positions"].tolist() == [[8]]


@given(
    st.integers(1, 40),
    st.integers(2, 12),
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 14)), max_size=4),
)
def test_evidence_labels_mark_the_evidence_in_the_window(
    tokens: int, room: int, shared: int, pieces: list[tuple[int, int]]
) -> None:
    text = TokenizedText(np.zeros(tokens, np.int32), np.array([(2 * n, 2 * n + 1) for n in range(tokens)], np.int32))
    step = max(1, room - shared)
    ranges = [(first, min(first + room, tokens)) for first in range(0, max(1, tokens - room + step), step)]
    pieces = [(first, min(first + more, tokens - 1)) for first, more in pieces if first < tokens]
    targets = window_targets(text, ranges, [(2 * a, 2 * b + 1) for a, b in pieces], met=bool(pieces))
    labels = evidence_labels(targets, [3] * len(ranges))
    for (first, stop), starts, ends in zip(
        ranges, labels["start_positions"].tolist(), labels["end_positions"].tolist(), strict=True
    ):
        known = [(a, b) for a, b in zip(starts, ends, strict=True) if a != IGNORED]
        inside = {token for a, b in pieces for token in range(max(a, first), min(b + 1, stop))}
        if not inside:
            assert known == [(0, 0)]
        for a, b in known if inside else ():
            # A whole piece, or its part in this window.
            assert (a - 3 + first, b - 3 + first) in {(max(p, first), min(q, stop - 1)) for p, q in pieces}
    assert not pieces or any(target.label == 1 for target in targets)
