"""nlpaug's augmenters as methods: each gets single words, or two neighbours, that were chosen for it.

So the share of changed words is kept, white space stays as it is, and no augmenter sees past a border of evidence.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import getstate, seed, setstate
from typing import Any

import numpy as np

from lightning_hpo.data.augmentation.method import Method
from lightning_hpo.data.augmentation.synonyms import prepare_synonyms, require_synonyms
from lightning_hpo.exceptions import InputError

__all__ = ["NLPAUG", "global_chance", "nlpaug_method"]

# From the first to the last letter or digit: punctuation around a word would hide it from a dictionary.
_CORE = re.compile(r"\w(?:.*\w)?")

_ONE_WORD: dict[str, Any] = {"aug_p": 1.0, "aug_max": 1}
_ONE_WORD_S_LETTERS: dict[str, Any] = {"aug_word_p": 1.0, "aug_word_max": 1}


@dataclass(frozen=True)
class _Use:
    """How one of nlpaug's classes is used: its options, and how many words it takes."""

    options: Mapping[str, Any]
    width: int = 1


_WORDS = _Use(_ONE_WORD)
_PAIRS = _Use(_ONE_WORD, width=2)
_LETTERS = _Use(_ONE_WORD_S_LETTERS)


def _action(use: _Use, name: str) -> _Use:
    return replace(use, options={**use.options, "action": name})


# Left out is RandomWordAug's `crop`: in nlpaug 1.1.11 it raises for one word and wraps around the end of a text.
NLPAUG: dict[str, _Use] = {
    # As nlpaug has it without an action, it deletes.
    "nlpaug/word/RandomWordAug": _PAIRS,
    "nlpaug/word/RandomWordAug/swap": _action(_PAIRS, "swap"),
    "nlpaug/word/RandomWordAug/delete": _action(_PAIRS, "delete"),
    "nlpaug/word/RandomWordAug/substitute": _action(_WORDS, "substitute"),
    "nlpaug/word/SpellingAug": _WORDS,
    "nlpaug/word/SplitAug": _WORDS,
    "nlpaug/word/SynonymAug": _WORDS,
    "nlpaug/char/KeyboardAug": _LETTERS,
    "nlpaug/char/OcrAug": _LETTERS,
    # As nlpaug has it without an action, it substitutes.
    "nlpaug/char/RandomCharAug": _LETTERS,
    "nlpaug/char/RandomCharAug/insert": _action(_LETTERS, "insert"),
    "nlpaug/char/RandomCharAug/substitute": _action(_LETTERS, "substitute"),
    "nlpaug/char/RandomCharAug/swap": _action(_LETTERS, "swap"),
    "nlpaug/char/RandomCharAug/delete": _action(_LETTERS, "delete"),
}


def nlpaug_method(name: str) -> Method:
    """One of nlpaug's augmenters, made once and used for every sample.

    Args:
        name: A key of `NLPAUG`.

    Raises:
        InputError: nlpaug, or the data that the augmenter reads, is not on this machine. Nothing is downloaded.
    """
    kind, used = name.split("/")[2], NLPAUG[name]
    try:
        from nlpaug.augmenter import char, word
    except ImportError as error:
        raise InputError(
            f"--aug.methods: {name} needs nlpaug ({error}); pip install 'lightning_hpo[augment]'"
        ) from error
    if kind == "SynonymAug":
        require_synonyms(name)
    made = getattr(word if "/word/" in name else char, kind)
    augmenter = made(**used.options, tokenizer=str.split, reverse_tokenizer=" ".join)
    if kind == "SpellingAug":
        _sort_spellings(augmenter.model.dict)
    if kind == "SynonymAug":
        prepare_synonyms(augmenter.model)
    change = _change_one if used.width == 1 else _change_neighbours
    return Method(used.width, partial(change, augmenter.augment), draws=True)


@contextmanager
def global_chance(generator: np.random.Generator) -> Iterator[None]:
    """Seed the global generators of Python and numpy from this one, and leave them as they were."""
    python, numpy = getstate(), np.random.get_state()
    drawn = int(generator.integers(2**32))
    seed(drawn)
    np.random.seed(drawn)
    try:
        yield
    finally:
        setstate(python)
        np.random.set_state(numpy)


def _change_one(augment: Callable[[str], list[str]], words: list[str]) -> list[str]:
    """Change a word, but not the punctuation around it."""
    core = _CORE.search(words[0])
    if core is None:
        return words
    return [words[0][: core.start()] + augment(core[0])[0] + words[0][core.end() :]]


def _change_neighbours(augment: Callable[[str], list[str]], words: list[str]) -> list[str]:
    """Change two words at once; where one was deleted, the second is."""
    kept = augment(" ".join(words))[0].split()
    return kept + [""] * (len(words) - len(kept))


def _sort_spellings(dictionary: dict[str, list[str]]) -> None:
    """Give spellings one order: nlpaug reads them through a set, so that a resumed trial would draw others."""
    for spellings in dictionary.values():
        spellings.sort()
