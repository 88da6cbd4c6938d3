import sys

import pytest

from lightning_hpo.data.augmentation.methods import METHODS, load_methods, unknown_methods
from lightning_hpo.exceptions import InputError


def test_known_names_have_no_problems() -> None:
    assert METHODS == ("swap", "delete", "split", "keyboard", "ocr", "synonyms")
    assert unknown_methods(METHODS) == []


def test_close_name_is_suggested() -> None:
    (line,) = unknown_methods(["swop"])
    assert line.startswith("--aug.methods: 'swop' is not a method; did you mean swap? or choose from swap, delete")
    (line,) = unknown_methods(["back-translation"])
    assert "is not a method; choose from swap, delete" in line


@pytest.mark.parametrize("name", ["spelling", "nlpaug/word/SpellingAug", "nlpaug/char/RandomCharAug/insert"])
def test_removed_method_is_an_error_that_lists_the_others(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_methods([name])
    (line,) = caught.value.problems
    assert line.startswith(f"--aug.methods: {name!r} is not a method; ")
    assert line.endswith(f"choose from {', '.join(METHODS)}")


@pytest.mark.parametrize(
    ("earlier", "current"),
    [
        ("nlpaug/word/RandomWordAug", "delete"),
        ("nlpaug/word/RandomWordAug/delete", "delete"),
        ("nlpaug/word/RandomWordAug/swap", "swap"),
        ("nlpaug/word/SplitAug", "split"),
        ("nlpaug/char/KeyboardAug", "keyboard"),
        ("nlpaug/char/OcrAug", "ocr"),
    ],
)
def test_earlier_names_load_the_built_in_method(earlier: str, current: str) -> None:
    assert load_methods([earlier]) == load_methods([current])


def test_built_in_methods_need_no_further_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    assert [method.width for method in load_methods(["swap", "delete", "split", "keyboard", "ocr"])] == [2, 1, 1, 1, 1]


def test_all_problems_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(InputError) as caught:
        load_methods(["swop", "synonyms", "swap", "nlpaug/word/SynonymAug"])
    unknown, *missing = caught.value.problems
    assert "'swop' is not a method" in unknown
    for name, line in zip(("synonyms", "nlpaug/word/SynonymAug"), missing, strict=True):
        assert line.startswith(f"--aug.methods: {name} needs nltk (")
        assert line.endswith("pip install 'lightning-text-hpo[augment]'")
