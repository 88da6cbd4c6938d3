from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.sentences import Sentences, sentence_ranges


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("One.  Two? Three", ["One.", "Two?", "Three"]),
        ("Really?! Yes... no", ["Really?!", "Yes...", "no"]),
        ("first line\nsecond line", ["first line", "second line"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("眠れない。疲れた。", ["眠れない。", "疲れた。"]),
    ],
)
def test_sentences_end_at_marks_and_lines(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_ranges(text)] == sentences


@given(st.text(alphabet='ab .!?\n\u3000")', max_size=40))
def test_sentences_are_in_order_and_hold_every_letter(text: str) -> None:
    ranges = sentence_ranges(text)
    assert all(start < end for start, end in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    held = {place for start, end in ranges for place in range(start, end)}
    assert all(place in held for place, letter in enumerate(text) if letter.isalpha())


TEXT = "I am tired. - I cannot sleep!\nno"  # sentences [0, 11), [12, 29) and [30, 32)


@pytest.mark.parametrize(
    ("span", "touched", "around"),
    [
        ((2, 4), (0, 1), (0, 11)),
        ((0, 11), (0, 1), (0, 11)),
        ((10, 13), (0, 2), (0, 29)),
        ((14, 15), (1, 2), (12, 29)),
        ((5, 32), (0, 3), (0, 32)),
        ((29, 30), (2, 3), (29, 30)),  # only the line break
        ((11, 12), (1, 2), (11, 12)),
        ((-1, -1), (0, 1), (-1, -1)),  # no span
    ],
)
def test_a_range_is_moved_to_the_sentences_that_it_touches(
    span: tuple[int, int], touched: tuple[int, int], around: tuple[int, int]
) -> None:
    assert Sentences(TEXT).touched(*span) == touched
    assert Sentences(TEXT).around(*span) == around


def test_a_text_without_sentences_leaves_a_range_as_it_is() -> None:
    assert Sentences("...").around(0, 2) == (0, 2)
    assert Sentences("...").touched(0, 2) == (0, 1)


@given(st.text(alphabet="ab .!?\n-", max_size=30), st.data())
def test_moved_ranges_hold_the_range_and_stay_when_moved_again(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    around = Sentences(text).around(start, end)
    assert Sentences(text).around(*around) == around
    letters = {place for place in range(start, end) if text[place].isalpha()}
    assert letters <= set(range(*around))
