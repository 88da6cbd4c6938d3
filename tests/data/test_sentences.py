from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.sentences import sentence_ranges


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
