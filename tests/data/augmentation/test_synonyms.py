import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_hpo.data.augmentation.methods import load_methods
from lightning_hpo.data.augmentation.synonyms import load_synonyms
from lightning_hpo.exceptions import InputError

TAGGER = "averaged_perceptron_tagger_eng"


@pytest.mark.usefixtures("no_nltk_data")
@pytest.mark.parametrize("name", ["synonyms", "nlpaug/word/SynonymAug"])
def test_missing_data_is_an_error_and_not_downloaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    def download(*_: object) -> None:
        raise AssertionError("a download was attempted")

    monkeypatch.setattr(nltk, "download", download)
    with pytest.raises(InputError) as caught:
        load_methods([name])
    assert str(caught.value).startswith(f"--aug.methods: {name} needs corpora/wordnet and taggers/{TAGGER}, which NLTK")
    assert f"`python -m nltk.downloader wordnet {TAGGER}`" in str(caught.value)


@pytest.mark.usefixtures("no_nltk_data")
@pytest.mark.parametrize(
    ("lost", "named"), [("taggers", f"taggers/{TAGGER}"), ("corpora/wordnet/index.noun", "corpora/wordnet")]
)
def test_error_names_only_the_missing_data(
    lost: str, named: str, nltk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    shutil.copytree(nltk_folder, tmp_path / "data")
    path = tmp_path / "data" / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "data")])
    with pytest.raises(InputError, match=f"synonyms needs {named}, which NLTK cannot find or read"):
        load_synonyms("synonyms")


def test_missing_nltk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.tag", None)
    with pytest.raises(InputError, match=r"synonyms needs nltk \(.*\); pip install 'lightning-text-hpo\[augment\]'"):
        load_synonyms("synonyms")


@pytest.mark.usefixtures("nltk_data")
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("(sad!", {"(blue!", "(unhappy!"}),
        ("Sad", {"Blue", "Unhappy"}),
        ("sleep", {"rest", "go under"}),
        ("sofa", {"sofa"}),
        ("a", {"a"}),
        ("...", {"..."}),
    ],
)
def test_word_is_replaced_by_synonyms_of_its_part_of_speech(word: str, expected: set[str]) -> None:
    change, generator = load_synonyms("synonyms"), np.random.default_rng(0)
    assert {change([word], generator)[0] for _ in range(40)} == expected
