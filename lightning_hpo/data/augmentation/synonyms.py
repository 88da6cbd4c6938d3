"""What nlpaug's SynonymAug reads through NLTK: WordNet, and a tagger that says what part of speech a word is."""

import os
from collections.abc import Callable
from typing import Any

from lightning_hpo.exceptions import InputError

__all__ = ["prepare_synonyms", "require_synonyms"]

_TAGGER = "averaged_perceptron_tagger_eng"


def require_synonyms(name: str) -> None:
    """Refuse to go on without the data: nlpaug would download it, and do nothing at all where that fails.

    Args:
        name: The method that needs it.

    Raises:
        InputError: NLTK, or some of the data, is not on this machine.
    """
    try:
        from nltk.corpus import wordnet
        from nltk.tag import PerceptronTagger
    except ImportError as error:
        raise InputError(f"--aug.methods: {name} needs nltk ({error}); pip install 'lightning_hpo[augment]'") from error
    found = {"corpora/wordnet": _loads(lambda: wordnet.ensure_loaded()), f"taggers/{_TAGGER}": _loads(PerceptronTagger)}
    missing = [resource for resource, is_there in found.items() if not is_there]
    if missing:
        raise InputError(
            f"--aug.methods: {name} reads {' and '.join(missing)}, which NLTK does not find, or not whole; fetch them"
            f" once with `python -m nltk.downloader wordnet {_TAGGER}`, or let NLTK_DATA name their folder"
        )


def prepare_synonyms(model: Any) -> None:
    """Make nlpaug's WordNet fit for many short calls in many processes.

    Args:
        model: The `model` of a SynonymAug.
    """
    from nltk.tag import PerceptronTagger

    # NLTK's own `pos_tag` reads its files again for every call.
    model.pos_tag = PerceptronTagger().tag
    # The workers of a loader would share the place in each open file, and read each other's lines.
    os.register_at_fork(after_in_child=model.model._data_file_map.clear)


def _loads(load: Callable[[], object]) -> bool:
    try:
        load()
    except (LookupError, OSError, ValueError):
        return False
    return True
