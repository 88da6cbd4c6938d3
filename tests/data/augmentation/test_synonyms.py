import shutil
import sys
from pathlib import Path

import pytest

from lightning_hpo.data.augmentation.nlpaug_methods import nlpaug_method
from lightning_hpo.data.augmentation.synonyms import require_synonyms
from lightning_hpo.exceptions import InputError

TAGGER = "averaged_perceptron_tagger_eng"


@pytest.mark.usefixtures("no_nltk_data")
@pytest.mark.parametrize("name", ["synonyms", "nlpaug/word/SynonymAug"])
def test_missing_data_is_refused_and_not_fetched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    def fetch(*_: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(nltk, "download", fetch)
    with pytest.raises(InputError) as caught:
        nlpaug_method(name)
    assert str(caught.value).startswith(f"--aug.methods: {name} reads corpora/wordnet and taggers/{TAGGER}, which NLTK")
    assert f"`python -m nltk.downloader wordnet {TAGGER}`" in str(caught.value)


@pytest.mark.usefixtures("no_nltk_data")
@pytest.mark.parametrize(
    ("lost", "named"), [("taggers", f"taggers/{TAGGER}"), ("corpora/wordnet/index.noun", "corpora/wordnet")]
)
def test_only_what_is_missing_is_named(
    lost: str, named: str, nltk_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    shutil.copytree(nltk_folder, tmp_path / "data")
    place = tmp_path / "data" / lost
    place.unlink() if place.is_file() else shutil.rmtree(place)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "data")])
    with pytest.raises(InputError, match=f"synonyms reads {named}, which NLTK does not find, or not whole"):
        require_synonyms("synonyms")


@pytest.mark.usefixtures("nltk_data")
def test_whole_data_is_enough() -> None:
    require_synonyms("synonyms")


def test_nltk_itself_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.tag", None)
    with pytest.raises(InputError, match=r"synonyms needs nltk \(.*\); pip install 'lightning_hpo\[augment\]'"):
        require_synonyms("synonyms")
