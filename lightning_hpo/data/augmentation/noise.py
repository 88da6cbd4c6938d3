"""Augmentation methods that need no further package and no data."""

import re
from collections.abc import Mapping

from numpy.random import Generator

__all__ = ["CORE", "deleted", "misread", "mistyped", "split", "swapped"]

# The first to the last letter or digit of a word, without the punctuation around it.
CORE = re.compile(r"\w(?:.*\w)?")

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")

# Confusions of optical character recognition: one letter or two.
_LOOKALIKES = {
    "0": ("o", "O"),
    "1": ("l", "I"),
    "2": ("z", "Z"),
    "5": ("s", "S"),
    "6": ("b",),
    "8": ("B",),
    "9": ("g", "q"),
    "B": ("8",),
    "I": ("l", "1"),
    "O": ("0",),
    "S": ("5",),
    "Z": ("2",),
    "b": ("6", "h"),
    "c": ("e",),
    "d": ("cl",),
    "e": ("c",),
    "g": ("9", "q"),
    "h": ("b",),
    "l": ("1", "I"),
    "m": ("rn",),
    "n": ("u",),
    "o": ("0",),
    "q": ("g", "9"),
    "s": ("5",),
    "u": ("n",),
    "v": ("y",),
    "w": ("vv",),
    "y": ("v",),
    "z": ("2",),
}


def _neighbours() -> dict[str, tuple[str, ...]]:
    """Return the keys around each key; a row is half a key to the right of the row above."""
    around: dict[str, tuple[str, ...]] = {}
    for row, keys in enumerate(_ROWS):
        above = _ROWS[row - 1] if row else ""
        below = _ROWS[row + 1] if row + 1 < len(_ROWS) else ""
        for place, key in enumerate(keys):
            row_neighbours = keys[max(0, place - 1) : place] + keys[place + 1 : place + 2]
            around[key] = (*row_neighbours, *above[place : place + 2], *below[max(0, place - 1) : place + 1])
    upper = {key.upper(): tuple(map(str.upper, keys)) for key, keys in around.items() if key.isalpha()}
    return around | upper


_NEIGHBOURS = _neighbours()


def swapped(words: list[str], _generator: Generator) -> list[str]:
    """Exchange two neighbouring words."""
    return words[::-1]


def deleted(_words: list[str], _generator: Generator) -> list[str]:
    """Delete the word."""
    return [""]


def split(words: list[str], generator: Generator) -> list[str]:
    """Insert a space into a word of four letters or more."""
    core = CORE.search(words[0])
    if core is None or len(core[0]) < 4:
        return words
    place = core.start() + int(generator.integers(1, len(core[0])))
    return [f"{words[0][:place]} {words[0][place:]}"]


def mistyped(words: list[str], generator: Generator) -> list[str]:
    """Replace one letter by that of a neighbouring key on a QWERTY keyboard."""
    return [_with_one_replaced(words[0], _NEIGHBOURS, generator)]


def misread(words: list[str], generator: Generator) -> list[str]:
    """Replace one letter by one that optical character recognition confuses with it."""
    return [_with_one_replaced(words[0], _LOOKALIKES, generator)]


def _with_one_replaced(word: str, others: Mapping[str, tuple[str, ...]], generator: Generator) -> str:
    places = [place for place, letter in enumerate(word) if letter in others]
    if not places:
        return word
    place = places[int(generator.integers(len(places)))]
    choices = others[word[place]]
    return word[:place] + choices[int(generator.integers(len(choices)))] + word[place + 1 :]
