"""A small WordNet and a part-of-speech tagger in the files that NLTK reads."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

_TAGGER = "averaged_perceptron_tagger_eng"
_SYNSETS = {
    "adj": [("a", ["sad", "blue", "unhappy"])],
    "noun": [("n", ["sleep", "rest", "go_under"]), ("n", ["a"])],
    "verb": [("v", ["sad", "grieve"])],
}
_TAGS = {"a": "DT", "Sad": "JJ", "sad": "JJ", "sleep": "NN"}


def _write_wordnet(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "index.sense").touch()
    (folder / "lexnames").write_text("00\tadj.all\t3\n01\tadj.pert\t3\n")
    for part in ("adj", "adv", "noun", "verb"):
        data, index = "", ""
        for letter, lemmas in _SYNSETS.get(part, []):
            index += "".join(f"{lemma} {letter} 1 0 1 0 {len(data):08}\n" for lemma in lemmas)
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            data += f"{len(data):08} 00 {letter} {len(lemmas):02x} {words} 000 | a gloss\n"
        for name, text in ((f"data.{part}", data), (f"index.{part}", index), (f"{part}.exc", "")):
            (folder / name).write_text(text)


def _write_tagger(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, value in (("weights", {}), ("tagdict", _TAGS), ("classes", ["JJ", "NN"])):
        (folder / f"{_TAGGER}.{name}.json").write_text(json.dumps(value))


@pytest.fixture(scope="session")
def nltk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nltk_data")
    _write_wordnet(folder / "corpora" / "wordnet")
    _write_tagger(folder / "taggers" / _TAGGER)
    return folder


def _forget_wordnet() -> None:
    from nltk.corpus import wordnet

    if hasattr(type(wordnet), "synsets"):
        wordnet._unload()


@pytest.fixture
def no_nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make NLTK find no data, whatever is on this machine."""
    import nltk

    _forget_wordnet()
    monkeypatch.setattr(nltk.data, "path", [])


@pytest.fixture(scope="module")
def nltk_data(nltk_folder: Path) -> Iterator[Path]:
    """Make NLTK find the data of `nltk_folder` only."""
    import nltk

    _forget_wordnet()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(nltk.data, "path", [str(nltk_folder)])
        yield nltk_folder
        _forget_wordnet()
