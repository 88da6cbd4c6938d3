"""Augmentation methods by name."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from lightning_hpo.data.augmentation.noise import deleted, misread, mistyped, split, swapped
from lightning_hpo.data.augmentation.synonyms import load_synonyms
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["METHODS", "Method", "load_methods", "unknown_methods"]


@dataclass(frozen=True)
class Method:
    """A way to change words.

    Attributes:
        change: Returns the new text of some neighbouring words. It draws from the given generator only. An empty text
            deletes the word. A word that it cannot change is returned as it is.
        width: Number of neighbouring words that it changes at a time.
    """

    change: Callable[[list[str], Generator], list[str]]
    width: int = 1


_BUILT_IN = {
    "swap": Method(swapped, width=2),
    "delete": Method(deleted),
    "split": Method(split),
    "keyboard": Method(mistyped),
    "ocr": Method(misread),
}
METHODS = (*_BUILT_IN, "synonyms")
# Names of nlpaug's augmenters in configs of earlier versions, which used nlpaug.
_EARLIER_NAMES = {
    "nlpaug/word/RandomWordAug": "delete",
    "nlpaug/word/RandomWordAug/delete": "delete",
    "nlpaug/word/RandomWordAug/swap": "swap",
    "nlpaug/word/SplitAug": "split",
    "nlpaug/word/SynonymAug": "synonyms",
    "nlpaug/char/KeyboardAug": "keyboard",
    "nlpaug/char/OcrAug": "ocr",
}


def unknown_methods(names: Sequence[str]) -> list[str]:
    """Return an error line for each name that is not a method."""
    return [
        f"--aug.methods: {name!r} is not a method; {_suggestion(name)}choose from {', '.join(METHODS)}"
        for name in names
        if name not in METHODS and name not in _EARLIER_NAMES
    ]


def load_methods(names: Sequence[str]) -> list[Method]:
    """Load the methods with these names.

    Raises:
        InputError: A name is unknown, or a method needs a package or data that is missing; one line each.
    """
    problems = unknown_methods(names)
    methods: list[Method] = []
    for name in names:
        current = _EARLIER_NAMES.get(name, name)
        try:
            if current in _BUILT_IN:
                methods.append(_BUILT_IN[current])
            elif current == "synonyms":
                methods.append(Method(load_synonyms(name)))
        except InputError as error:
            problems += error.problems
    raise_problems(problems)
    return methods


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, METHODS, n=1)
    return f"did you mean {near[0]}? or " if near else ""
