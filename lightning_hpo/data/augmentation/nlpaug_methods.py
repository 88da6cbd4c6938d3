"""nlpaug's augmenters as methods: each gets single words, or two neighbours, that were chosen for it.

So the share of changed words is kept, white space stays as it is, and no augmenter sees past a border of evidence.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from lightning_hpo.data.augmentation.method import Method
from lightning_hpo.data.augmentation.noise import CORE
from lightning_hpo.data.augmentation.synonyms import prepare_synonyms, require_synonyms
from lightning_hpo.exceptions import InputError

__all__ = ["NLPAUG", "nlpaug_method"]


@dataclass(frozen=True)
class _Use:
    """One of nlpaug's classes, the options that it is made with, and how many words it takes."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=lambda: {"aug_p": 1.0, "aug_max": 1})
    width: int = 1

    def doing(self, action: str) -> "_Use":
        return replace(self, options={**self.options, "action": action})


_LETTERS = {"aug_word_p": 1.0, "aug_word_max": 1}
_RANDOM_WORD, _RANDOM_PAIR = _Use("RandomWordAug"), _Use("RandomWordAug", width=2)
_RANDOM_CHAR = _Use("RandomCharAug", _LETTERS)
_SPELLING, _SYNONYM = _Use("SpellingAug"), _Use("SynonymAug")

# Left out is RandomWordAug's `crop`: in nlpaug 1.1.11 it raises for one word and wraps around the end of a text. Left
# out is all that needs a language model or vectors of its own, and AntonymAug, since it turns evidence around.
NLPAUG: dict[str, _Use] = {
    "spelling": _SPELLING,
    "synonyms": _SYNONYM,
    # As nlpaug has it without an action, it deletes.
    "nlpaug/word/RandomWordAug": _RANDOM_PAIR,
    "nlpaug/word/RandomWordAug/swap": _RANDOM_PAIR.doing("swap"),
    "nlpaug/word/RandomWordAug/delete": _RANDOM_PAIR.doing("delete"),
    "nlpaug/word/RandomWordAug/substitute": _RANDOM_WORD.doing("substitute"),
    "nlpaug/word/SpellingAug": _SPELLING,
    "nlpaug/word/SplitAug": _Use("SplitAug"),
    "nlpaug/word/SynonymAug": _SYNONYM,
    "nlpaug/char/KeyboardAug": _Use("KeyboardAug", _LETTERS),
    "nlpaug/char/OcrAug": _Use("OcrAug", _LETTERS),
    # As nlpaug has it without an action, it substitutes.
    "nlpaug/char/RandomCharAug": _RANDOM_CHAR,
    "nlpaug/char/RandomCharAug/insert": _RANDOM_CHAR.doing("insert"),
    "nlpaug/char/RandomCharAug/substitute": _RANDOM_CHAR.doing("substitute"),
    "nlpaug/char/RandomCharAug/swap": _RANDOM_CHAR.doing("swap"),
    "nlpaug/char/RandomCharAug/delete": _RANDOM_CHAR.doing("delete"),
}


def nlpaug_method(name: str) -> Method:
    """One of nlpaug's augmenters, made once and used for every sample.

    Args:
        name: A key of `NLPAUG`.

    Raises:
        InputError: nlpaug, or the data that the augmenter reads, is not on this machine. Nothing is downloaded.
    """
    try:
        with warnings.catch_warnings():
            # nlpaug 1.1.11 holds escapes that Python warns of when it compiles them.
            warnings.filterwarnings("ignore", message=r".*invalid escape sequence")
            from nlpaug.augmenter import char, word
    except ImportError as error:
        raise InputError(
            f"--aug.methods: {name} needs nlpaug ({error}); pip install 'lightning_hpo[augment]'"
        ) from error
    used = NLPAUG[name]
    if used is _SYNONYM:
        require_synonyms(name)
    made = getattr(word, used.kind, None) or getattr(char, used.kind)
    augmenter = made(**used.options, tokenizer=str.split, reverse_tokenizer=" ".join)
    if used is _SPELLING:
        _sort_spellings(augmenter.model.dict)
    if used is _SYNONYM:
        prepare_synonyms(augmenter.model)
    return Method(partial(_change_one if used.width == 1 else _change_two, augmenter.augment), used.width)


def _change_one(augment: Callable[[str], list[str]], words: list[str], generator: np.random.Generator) -> list[str]:
    """Change a word, but not the punctuation around it."""
    core = CORE.search(words[0])
    if core is None:
        return words
    with _global_chance(generator):
        new = augment(core[0])[0]
    return [words[0][: core.start()] + new + words[0][core.end() :]]


def _change_two(augment: Callable[[str], list[str]], words: list[str], generator: np.random.Generator) -> list[str]:
    """Change two words at once; where one was deleted, the second is."""
    with _global_chance(generator):
        kept = augment(" ".join(words))[0].split()
    return kept + [""] * (len(words) - len(kept))


@contextmanager
def _global_chance(generator: np.random.Generator) -> Iterator[None]:
    """Seed the generators of Python and numpy that nlpaug draws from, and leave them as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    drawn = int(generator.integers(2**32))
    random.seed(drawn)
    np.random.seed(drawn)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _sort_spellings(dictionary: dict[str, list[str]]) -> None:
    """Give spellings one order: nlpaug reads them through a set, so that a resumed trial would draw others."""
    for spellings in dictionary.values():
        spellings.sort()
