from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.augmentation.noise import deleted, misread, mistyped, split, swapped


def _all_of(change: Callable[[list[str], np.random.Generator], list[str]], word: str) -> set[str]:
    """Return all results of a change for a word."""
    generator = np.random.default_rng(0)
    return {change([word], generator)[0] for _ in range(300)}


def test_results_for_a_word() -> None:
    assert swapped(["so", "sad"], np.random.default_rng(0)) == ["sad", "so"]
    assert deleted(["sad"], np.random.default_rng(0)) == [""]
    assert _all_of(split, '"sad?"') == {'"sad?"'}
    assert _all_of(split, '"gone"?') == {'"g one"?', '"go ne"?', '"gon e"?'}
    assert _all_of(mistyped, "(g)") == {f"({key})" for key in "fhtyvb"}
    assert _all_of(mistyped, "Q") == {"1", "2", "W", "A"}
    assert _all_of(misread, "me.") == {"rne.", "mc."}


@pytest.mark.parametrize("change", [split, mistyped, misread])
def test_word_without_letters_is_unchanged(change: Callable[[list[str], np.random.Generator], list[str]]) -> None:
    assert _all_of(change, "...") == {"..."}


@given(st.text(min_size=1).filter(lambda word: not any(map(str.isspace, word))), st.integers(0, 99))
def test_noise_changes_one_position(word: str, seed: int) -> None:
    (halves,) = split([word], np.random.default_rng(seed))
    assert halves.replace(" ", "", 1) == word
    (typed,) = mistyped([word], np.random.default_rng(seed))
    assert len(typed) == len(word)
    assert sum(one != other for one, other in zip(word, typed, strict=True)) <= 1
    (read,) = misread([word], np.random.default_rng(seed))
    assert len(word) <= len(read) <= len(word) + 1
