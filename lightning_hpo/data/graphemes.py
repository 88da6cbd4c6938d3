"""Whole characters as a reader sees them: letters with their accents, emoji of several code points, flags."""

import regex

__all__ = ["whole_graphemes"]

_GRAPHEME = regex.compile(r"\X")
# Below this code point, every character but a line feed starts a grapheme.
_FIRST_COMBINING = 0x300


def whole_graphemes(text: str, start: int, end: int) -> tuple[int, int]:
    """Extend a character range so that it cuts no grapheme (Unicode Standard Annex 29).

    Args:
        text: The text.
        start: First character.
        end: Character after the last.

    Returns:
        The range [start, end) of whole graphemes; an empty range stays as it is.
    """
    if start >= end:
        return start, end
    return _bounds(text, start)[0], _bounds(text, end)[1]


def _bounds(text: str, place: int) -> tuple[int, int]:
    """Return the bounds of the grapheme that a place cuts, or twice the place if it cuts none."""
    if not 0 < place < len(text) or _starts_one(text[place]):
        return place, place
    first = place - 1
    while first > 0 and not _starts_one(text[first]):
        first -= 1
    if first > 0:  # a character that joins the next one may stand before
        first -= 1
    for found in _GRAPHEME.finditer(text, first):
        if found.end() >= place:
            return (place, place) if found.end() == place else found.span()
    return place, place


def _starts_one(sign: str) -> bool:
    return ord(sign) < _FIRST_COMBINING and sign != "\n"
