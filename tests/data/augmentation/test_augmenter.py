"""Each piece of a text is marked, so that a method's result shows which piece every word comes from."""

import random
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpo.data.augmentation import Augmentation, Augmenter
from lightning_hpo.data.augmentation.methods import METHODS

Span = tuple[int, int]

pytestmark = pytest.mark.usefixtures("nltk_data")

WORDS = ["I", "believe", "nobody", "would", "notice", "sleep", "sad", "good", "w4y", "it's", "10"]
TEXT = "I believe nobody would notice that I cannot sleep, and that I am so sad on every single day of it. " * 3


@st.composite
def _marked(draw: st.DrawFn) -> tuple[str, list[Span], list[Span]]:
    """Draw a text whose words are enclosed in marks of their piece, and spans in characters and in pieces.

    The marks are neither letters nor digits, which methods leave alone. Pieces may touch within a word.
    """
    spaces = st.sampled_from([" ", "  ", "\n", "\r\n\n", "\t"])
    pieces = []
    for piece in range(draw(st.integers(1, 5))):
        words = draw(st.lists(st.sampled_from(WORDS), max_size=12))
        pieces.append(draw(st.sampled_from(["", " "])) if words else " ")
        for place, word in enumerate(words):
            pieces[-1] += (draw(spaces) if place else "") + chr(0xE000 + piece) + word + chr(0xE000 + piece)
        pieces[-1] += draw(st.sampled_from(["", " ", "\n"]))
    borders = list(accumulate(map(len, pieces), initial=0))
    places = st.integers(0, len(pieces) - 1)
    ends = draw(st.lists(st.tuples(places, places).map(lambda pair: (min(pair), max(pair) + 1)), max_size=3))
    return "".join(pieces), [(borders[first], borders[stop]) for first, stop in ends], ends


@cache
def _augmenter(methods: tuple[str, ...], operations: int, max_share: float) -> Augmenter:
    return Augmenter(Augmentation(True, list(methods), operations=operations, max_share=max_share))


def _marks(text: str) -> set[int]:
    return {ord(letter) - 0xE000 for letter in text if 0xE000 <= ord(letter) < 0xE010}


@pytest.mark.parametrize("methods", [(name,) for name in METHODS] + [METHODS, ("swap", "delete"), ("split", "ocr")])
@settings(max_examples=30)
@given(
    marked=_marked(), operations=st.integers(1, 3), max_share=st.sampled_from([0.1, 0.5, 0.9]), seed=st.integers(0, 99)
)
def test_spans_mark_the_augmented_evidence(
    methods: tuple[str, ...], marked: tuple[str, list[Span], list[Span]], operations: int, max_share: float, seed: int
) -> None:
    text, spans, ends = marked
    generator = np.random.default_rng(seed)
    new, moved = _augmenter(methods, operations, max_share).augment(text, spans, generator)
    assert len(moved) == len(spans)
    for (start, end), (new_start, new_end), (first, stop) in zip(spans, moved, ends, strict=True):
        before, inside, outside = text[start:end], new[new_start:new_end], new[:new_start] + new[new_end:]
        assert _marks(inside) <= set(range(first, stop))
        assert not _marks(outside) & set(range(first, stop))
        assert bool(inside.split()) == bool(before.split())
        # No white space is added at the ends of the evidence.
        assert inside[:1].isspace() <= before[:1].isspace()
        assert inside[-1:].isspace() <= before[-1:].isspace()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_changes_a_text(name: str) -> None:
    augmenter = _augmenter((name,), 1, 0.5)
    texts = {augmenter.augment(TEXT, [(0, 20)], np.random.default_rng(seed))[0] for seed in range(5)}
    assert len(texts) > 1
    assert TEXT not in texts


@pytest.mark.parametrize("name", METHODS)
def test_generator_is_the_only_source_of_randomness(name: str) -> None:
    augmenter = _augmenter((name,), 2, 0.5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]
    one = augmenter.augment(TEXT, [(0, 20)], np.random.default_rng(1))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # type: ignore[index]
    random.seed(5)
    np.random.seed(5)
    assert (
        Augmenter(Augmentation(True, [name], operations=2, max_share=0.5)).augment(
            TEXT, [(0, 20)], np.random.default_rng(1)
        )
        == one
    )
    random.setstate(before[0])


@given(
    st.integers(1, 40),
    st.lists(st.sampled_from(["swap", "delete"]), min_size=1, max_size=2, unique=True),
    st.integers(1, 3),
    st.floats(0.05, 0.95),
    st.integers(0, 99),
)
def test_share_of_changed_words_is_at_most_max_share(
    count: int, methods: list[str], operations: int, share: float, seed: int
) -> None:
    before = [f"w{number}" for number in range(count)]
    augmenter = Augmenter(Augmentation(True, methods, operations=operations, max_share=share))
    after = augmenter.augment(" ".join(before), [], np.random.default_rng(seed))[0].split()
    kept = [word for word in before if word in after]
    out_of_place = sum(one != other for one, other in zip(kept, after, strict=True))
    changed = count - len(after) + out_of_place
    # At least one change is made, and a swap moves two words.
    assert changed <= max(share * count, 2 if "swap" in methods else 1)
    assert changed or count == 1


@pytest.mark.parametrize("operations", [1, 2, 3])
def test_number_of_methods_is_operations(operations: int) -> None:
    augmenter = Augmenter(Augmentation(True, ["delete", "split", "swap"], operations=operations, max_share=0.9))
    text = " ".join(f"w{number:02}rd" for number in range(30))
    seen = set()
    for seed in range(40):
        words = augmenter.augment(text, [], np.random.default_rng(seed))[0].split()
        whole = [word for word in words if word in text.split()]
        done = {"split"} if len(whole) < len(words) else set()
        done |= {"swap"} if whole != sorted(whole, key=text.index) else set()
        done |= {"delete"} if len("".join(words)) < len(text.replace(" ", "")) else set()
        seen.add(len(done))
    assert seen == {operations}


def test_another_method_is_used_if_one_changes_nothing() -> None:
    for seed in range(10):
        augmenter = Augmenter(Augmentation(True, ["split", "delete"], max_share=0.5))
        assert augmenter.augment("a b", [], np.random.default_rng(seed))[0] in {"a", "b"}


def test_text_that_no_method_can_change_is_unchanged() -> None:
    augmenter = Augmenter(Augmentation(True, ["split", "delete"]))
    assert augmenter.augment(" \n a", [(3, 4)], np.random.default_rng(0)) == (" \n a", [(3, 4)])
    assert augmenter.augment("", [], np.random.default_rng(0)) == ("", [])


@pytest.mark.usefixtures("no_nltk_data")
def test_disabled_augmentation_loads_no_method() -> None:
    Augmenter(Augmentation(False, ["synonyms"]))


def test_synonyms_come_from_wordnet(nltk_data: Path) -> None:
    found = {_augmenter(("synonyms",), 1, 0.5).augment("so sad!", [], np.random.default_rng(s))[0] for s in range(20)}
    assert found == {"so blue!", "so unhappy!"}
    assert nltk_data.is_dir()
