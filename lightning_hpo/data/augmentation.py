"""Changes words of training windows without losing the evidence."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lightning_hpo.exceptions import InputError

__all__ = ["Augmentation", "augment"]

_METHODS = ("swap", "delete")


@dataclass
class Augmentation:
    """Random changes of words in training samples; the scored parts are never changed.

    Words move or vanish within the evidence or outside of it, never across its border, and evidence keeps a word.

    Args:
        enabled: Whether to augment at all.
        methods: Ways to change words: swap (two neighbours change places), delete.
        p_apply: Probability that a sample is augmented, 0 to 1.
        max_share: Largest share of a sample's words that change, above 0 and below 1.
    """

    enabled: bool = False
    methods: list[str] = field(default_factory=lambda: list(_METHODS))
    p_apply: float = 0.15
    max_share: float = 0.2

    def __post_init__(self) -> None:
        problems = [
            f"--aug.methods: {method!r} is no method; choose from {', '.join(_METHODS)}"
            for method in self.methods
            if method not in _METHODS
        ]
        if not self.methods:
            problems.append(f"--aug.methods: it is empty; choose from {', '.join(_METHODS)}")
        if not 0 <= self.p_apply <= 1:
            problems.append(f"--aug.p_apply: {self.p_apply} is no probability; give 0 to 1")
        if not 0 < self.max_share < 1:
            problems.append(f"--aug.max_share: {self.max_share} is no share of words; give a value between 0 and 1")
        if problems:
            raise InputError(problems)

    def applies(self, generator: np.random.Generator) -> bool:
        """Draw whether a sample is augmented."""
        return self.enabled and generator.random() < self.p_apply


@dataclass
class _Piece:
    """A stretch of text between two borders of evidence: words and white space in turn."""

    tokens: list[str]
    is_evidence: bool

    def words(self) -> list[int]:
        return [place for place, token in enumerate(self.tokens) if token.strip()]

    def text(self) -> str:
        return "".join(self.tokens)

    def delete(self, place: int) -> bool:
        """Delete a word and the white space that parted it; the last word of evidence stays."""
        if self.is_evidence and len(self.words()) == 1:
            return False
        # Emptied in place, so that the places of other words still hold.
        self.tokens[place] = ""
        spaces = [*range(place + 1, len(self.tokens)), *range(place - 1, -1, -1)]
        behind = self._separator(spaces[: len(self.tokens) - place - 1])
        before = self._separator(spaces[len(self.tokens) - place - 1 :])
        gone = behind if behind is not None else before
        if gone is not None:
            self.tokens[gone] = ""
        return True

    def swap(self, place: int, other: int) -> bool:
        self.tokens[place], self.tokens[other] = self.tokens[other], self.tokens[place]
        return True

    def _separator(self, places: Sequence[int]) -> int | None:
        """The white space next in this direction, unless a word comes first."""
        found = next((place for place in places if self.tokens[place]), None)
        return found if found is not None and self.tokens[found].isspace() else None


def augment(
    text: str, spans: Sequence[tuple[int, int]], settings: Augmentation, generator: np.random.Generator
) -> tuple[str, list[tuple[int, int]]]:
    """Change words of a text, and find its evidence again.

    Args:
        text: The text of a window.
        spans: Its evidence as character ranges [start, end); they may overlap.
        settings: How much may change, and how.
        generator: Decides everything that is left to chance.

    Returns:
        The new text and the new place of each span, in the same order. Where the text is too short for the allowed
        share to reach one word, it is the same text.
    """
    borders = sorted({0, len(text), *(border for span in spans for border in span)})
    pieces = [
        _Piece(re.findall(r"\s+|\S+", text[start:end]), any(first <= start and end <= last for first, last in spans))
        for start, end in itertools.pairwise(borders)
    ]
    _change(pieces, settings, generator)
    moved = dict(zip(borders, np.cumsum([0, *(len(piece.text()) for piece in pieces)]).tolist(), strict=True))
    return "".join(piece.text() for piece in pieces), [(moved[start], moved[end]) for start, end in spans]


def _change(pieces: Sequence[_Piece], settings: Augmentation, generator: np.random.Generator) -> None:
    """Change between one word and the allowed share of them."""
    words = [(piece, place) for piece in pieces for place in piece.words()]
    most = int(settings.max_share * len(words))
    left = int(generator.integers(1, most + 1)) if most else 0
    untouched = set(range(len(words)))
    for index in generator.permutation(len(words)).tolist():
        if not left:
            return
        if index in untouched:
            touched = _change_word(words, index, left, untouched, settings.methods, generator)
            untouched -= touched
            left -= len(touched)


def _change_word(
    words: Sequence[tuple[_Piece, int]],
    index: int,
    left: int,
    untouched: set[int],
    methods: Sequence[str],
    generator: np.random.Generator,
) -> set[int]:
    """Apply one method to a word; gives the indices of the words that changed."""
    piece, place = words[index]
    if methods[int(generator.integers(len(methods)))] == "delete":
        return {index} if piece.delete(place) else set()
    after = index + 1
    if left < 2 or after not in untouched or words[after][0] is not piece:
        return set()
    piece.swap(place, words[after][1])
    return {index, after}
