from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.augmentation import Augmentation, Augmenter
from lightning_hpo.exceptions import InputError


@st.composite
def _text_and_spans(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A text of different words, and ranges of whole words in it, which may overlap."""
    count = draw(st.integers(1, 30))
    gaps = draw(st.lists(st.sampled_from([" ", "\n", "  ", "\r\n\n"]), min_size=count, max_size=count))
    text, places = "", []
    for word in range(count):
        places.append((len(text), len(text) + len(f"w{word}")))
        text += f"w{word}{gaps[word]}"
    spans = []
    for _ in range(draw(st.integers(0, 3))):
        first = draw(st.integers(0, count - 1))
        last = draw(st.integers(first, count - 1))
        spans.append((places[first][0], places[last][1]))
    return text, spans


@given(
    _text_and_spans(),
    st.sampled_from([["swap"], ["delete"], ["swap", "delete"]]),
    st.floats(0.05, 0.95),
    st.integers(0, 99),
)
def test_evidence_keeps_its_words_and_its_borders(
    case: tuple[str, list[tuple[int, int]]], methods: list[str], share: float, seed: int
) -> None:
    text, spans = case
    settings = Augmentation(enabled=True, methods=methods, p_apply=1.0, max_share=share)
    changed, moved = Augmenter(settings).augment(text, spans, np.random.default_rng(seed))
    before, after = text.split(), changed.split()
    assert set(after) <= set(before)
    assert len(after) == len(set(after))
    # No more words than allowed vanish or leave their place; to swap two neighbours moves both.
    kept = [word for word in before if word in after]
    out_of_place = sum(one != other for one, other in zip(kept, after, strict=True))
    assert len(before) - len(after) + out_of_place <= max(2, share * len(before))
    if methods == ["swap"]:
        assert sorted(after) == sorted(before)
    if methods == ["delete"]:
        assert after == kept
    for (start, end), (new_start, new_end) in zip(spans, moved, strict=True):
        evidence, new_evidence = text[start:end].split(), changed[new_start:new_end].split()
        assert new_evidence
        assert set(new_evidence) == set(evidence) & set(after)
        assert changed[new_start:new_end] == changed[new_start:new_end].strip()


def test_without_evidence_the_borders_are_those_of_the_text() -> None:
    settings = Augmentation(enabled=True, methods=["delete"], max_share=0.5)
    changed, moved = Augmenter(settings).augment("a b c d", [], np.random.default_rng(0))
    assert moved == []
    assert 2 <= len(changed.split()) <= 3


def test_chance_is_the_generators_alone() -> None:
    text = " ".join(f"w{number}" for number in range(40))
    settings = Augmentation(enabled=True)
    one, same, other = (Augmenter(settings).augment(text, [], np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("enabled", "p_apply", "share"), [(False, 1.0, 0.0), (True, 0.0, 0.0), (True, 1.0, 1.0), (True, 0.3, 0.3)]
)
def test_how_often_it_applies(enabled: bool, p_apply: float, share: float) -> None:
    generator = np.random.default_rng(0)
    settings = Augmentation(enabled=enabled, p_apply=p_apply)
    assert np.mean([settings.applies(generator) for _ in range(2000)]) == pytest.approx(share, abs=0.03)


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Augmentation(methods=["swop"], p_apply=1.5, max_share=0.0)
    flags = [problem.split(":")[0] for problem in caught.value.problems]
    assert flags == ["--aug.methods", "--aug.p_apply", "--aug.max_share"]
    with pytest.raises(InputError, match="it is empty"):
        Augmentation(methods=[])


def test_pairwise_words_are_swapped_within_a_piece() -> None:
    text = "a b c d e f g h"
    settings = Augmentation(enabled=True, methods=["swap"], max_share=0.9)
    for seed in range(20):
        changed, _ = Augmenter(settings).augment(text, [(4, 11)], np.random.default_rng(seed))
        assert set(changed[4:11].split()) == {"c", "d", "e", "f"}
        assert len(list(pairwise(changed.split()))) == 7
