"""Replace a word by a synonym from WordNet, read through NLTK."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.random import Generator

from lightning_hpo.data.augmentation.noise import CORE
from lightning_hpo.exceptions import InputError

__all__ = ["load_synonyms"]

_TAGGER = "averaged_perceptron_tagger_eng"
# WordNet's part of speech by the first two letters of a Penn Treebank tag. Other tags match all parts of speech.
_PARTS_OF_SPEECH = {"JJ": "a", "NN": "n", "RB": "r", "VB": "v"}


def load_synonyms(name: str) -> Callable[[list[str], Generator], list[str]]:
    """Load WordNet and a part-of-speech tagger, and return the function that replaces a word by a synonym.

    Nothing is downloaded. Errors contain the name of the method.

    Raises:
        InputError: If NLTK or its data is missing on this machine.
    """
    try:
        from nltk.corpus import wordnet
        from nltk.tag import PerceptronTagger
    except ImportError as error:
        raise InputError(
            f"--aug.methods: {name} needs nltk ({error}); pip install 'lightning-text-hpo[augment]'"
        ) from error
    # A lambda, because `wordnet` is a lazy loader: its methods exist only once it has loaded.
    loaded = {
        "corpora/wordnet": _loads(lambda: wordnet.ensure_loaded()),
        f"taggers/{_TAGGER}": _loads(PerceptronTagger),
    }
    missing = [resource for resource, is_there in loaded.items() if not is_there]
    if missing:
        raise InputError(
            f"--aug.methods: {name} needs {' and '.join(missing)}, which NLTK cannot find or read; download them once"
            f" with `python -m nltk.downloader wordnet {_TAGGER}`, or set NLTK_DATA to their folder"
        )
    # Otherwise data loader workers would share the position in each open file, and read each other's lines.
    os.register_at_fork(after_in_child=wordnet._data_file_map.clear)
    # `nltk.pos_tag` would read the tagger's files at every call.
    return partial(_replaced, wordnet, PerceptronTagger())


def _replaced(wordnet: Any, tagger: Any, words: list[str], generator: Generator) -> list[str]:
    """Replace the word, but not the punctuation around it."""
    core = CORE.search(words[0])
    if core is None:
        return words
    synonyms = _synonyms(wordnet, tagger, core[0])
    if not synonyms:
        return words
    new = synonyms[int(generator.integers(len(synonyms)))]
    return [words[0][: core.start()] + (new.capitalize() if core[0].istitle() else new) + words[0][core.end() :]]


def _synonyms(wordnet: Any, tagger: Any, word: str) -> list[str]:
    """Return the lemmas of all senses of a word; a lemma of several senses is listed, and drawn, more often."""
    ((_, tag),) = tagger.tag([word])
    if tag == "DT":  # a determiner; WordNet lists "a" as a vitamin and an amount of current
        return []
    senses = wordnet.synsets(word, pos=_PARTS_OF_SPEECH.get(tag[:2]))
    lemmas = [lemma.name().replace("_", " ").lower() for sense in senses for lemma in sense.lemmas()]
    return [lemma for lemma in lemmas if lemma != word.lower()]


def _loads(load: Callable[[], object]) -> bool:
    try:
        load()
    except (LookupError, OSError, ValueError):
        return False
    return True
