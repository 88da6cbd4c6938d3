from typing import Any

import numpy as np
import pytest

from lightning_hpo.data.augmentation.nlpaug_methods import NLPAUG, nlpaug_method


def _all_of(name: str, *words: str) -> set[tuple[str, ...]]:
    """Everything that a method may make of words."""
    method, generator = nlpaug_method(name), np.random.default_rng(0)
    assert method.width == len(words)
    return {tuple(method.change(list(words), generator)) for _ in range(60)}


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("nlpaug/word/RandomWordAug/swap", ("so", "sad"), {("Sad", "so"), ("sad", "so")}),
        ("nlpaug/word/RandomWordAug/delete", ("So", "sad"), {("Sad", ""), ("So", "")}),
        ("nlpaug/word/RandomWordAug/substitute", ("(sad)",), {("(_)",)}),
        ("nlpaug/word/SplitAug", ('"gone"?',), {('"g one"?',), ('"go ne"?',)}),
    ],
)
def test_the_named_class_and_action_is_used(name: str, words: tuple[str, ...], expected: set[tuple[str, ...]]) -> None:
    assert _all_of(name, *words) == expected


@pytest.mark.parametrize("name", [name for name, used in NLPAUG.items() if used.width == 1 and "Syn" not in used.kind])
def test_a_word_without_letters_stays(name: str) -> None:
    assert _all_of(name, "...") == {("...",)}


def test_spellings_stand_in_one_order_in_every_process() -> None:
    """A set, as nlpaug reads them, has another order in every process."""
    augment: Any = nlpaug_method("spelling").change
    spellings = augment.args[0].__self__.model.dict
    assert len(spellings) > 1000
    assert all(each == sorted(each) for each in spellings.values())
