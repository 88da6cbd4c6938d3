from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.augmentation.methods import Method
from lightning_hpo.data.augmentation.pieces import Pieces

CHANCE = np.random.default_rng(0)
UPPER = Method(lambda words, _: [word.upper() for word in words])
DELETE = Method(lambda _words, _generator: [""])
SWAP = Method(lambda words, _: words[::-1], width=2)


def _after(text: str, spans: list[tuple[int, int]], method: Method) -> tuple[str, list[str]]:
    """Return the text after a method was applied to each word, and the new text of each span."""
    pieces = Pieces(text, spans)
    for place in pieces.words:
        pieces.change(place, method, CHANCE)
    return pieces.text, [pieces.text[start:end] for start, end in pieces.moved(spans)]


@given(st.text(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4))
def test_unchanged_text_is_identical(text: str, shares: list[tuple[float, float]]) -> None:
    spans = [tuple(sorted(int(share * len(text)) for share in pair)) for pair in shares]
    pieces = Pieces(text, spans)  # type: ignore[arg-type]
    refused = [pieces.change(place, Method(lambda words, _: words), CHANCE) for place in pieces.words]
    assert not any(refused)
    assert pieces.text.encode() == text.encode()
    assert pieces.moved(spans) == spans  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "spans", "method", "expected", "evidence"),
    [
        ("I am sad. Bye", [(5, 9)], UPPER, "I AM SAD. BYE", ["SAD."]),
        ("one two three four", [], DELETE, "four", []),
        ("one two three", [(4, 7)], DELETE, "one two three", ["two"]),
        ("one two three four five", [(4, 13)], DELETE, "one three five", ["three"]),
        ("a b c d", [(2, 5)], SWAP, "a c b d", ["c b"]),
        ("a b c", [(0, 3), (2, 5)], SWAP, "a b c", ["a b", "b c"]),
        ("\n a\t\tb  c\r\n", [(2, 9)], SWAP, "\n b\t\ta  c\r\n", ["b\t\ta  c"]),
    ],
)
def test_changes_stay_within_a_piece(
    text: str, spans: list[tuple[int, int]], method: Method, expected: str, evidence: list[str]
) -> None:
    assert _after(text, spans, method) == (expected, evidence)


def test_word_across_a_border_is_unchanged() -> None:
    assert _after("so un|happy today".replace("|", ""), [(5, 10)], UPPER) == ("SO unhappy TODAY", ["happy"])


def test_word_changes_at_most_once() -> None:
    pieces = Pieces("a b c", [])
    assert [pieces.change(place, UPPER, CHANCE) for place in (0, 0, 2)] == [True, False, True]
    assert not pieces.change(2, SWAP, CHANCE)
    assert not pieces.change(4, SWAP, CHANCE)


def test_white_space_around_a_new_word_is_removed() -> None:
    assert _after("a b", [(2, 3)], Method(lambda words, _: [f" {words[0]}x\n"])) == ("ax bx", ["bx"])


@given(st.lists(st.sampled_from(["a", "bb", "c."]), min_size=1, max_size=8), st.integers(0, 99))
def test_deletion_leaves_one_space_between_words(words: list[str], seed: int) -> None:
    pieces = Pieces(" ".join(words), [])
    for place in np.random.default_rng(seed).permutation(pieces.words).tolist()[: len(words) // 2]:
        assert pieces.change(place, DELETE, CHANCE)
    assert pieces.text == " ".join(pieces.text.split())
    assert all(one or other for one, other in pairwise(pieces.text.split(" ")))
