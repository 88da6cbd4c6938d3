import sys

import pytest

from lightning_hpo.data.augmentation.methods import METHODS, load_methods, unknown_methods
from lightning_hpo.exceptions import InputError


def test_the_names_are_those_of_the_help() -> None:
    assert METHODS[:7] == ("swap", "delete", "split", "keyboard", "ocr", "spelling", "synonyms")
    assert all(name.startswith(("nlpaug/word/", "nlpaug/char/")) for name in METHODS[7:])
    assert unknown_methods(METHODS) == []


def test_a_near_name_is_offered() -> None:
    (line,) = unknown_methods(["nlpaug/word/RandomWordsAug"])
    assert line.startswith("--aug.methods: 'nlpaug/word/RandomWordsAug' is no method; did you mean nlpaug/word/Random")
    (line,) = unknown_methods(["back-translation"])
    assert "is no method; choose from swap, delete" in line


def test_built_in_methods_import_no_further_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nlpaug.augmenter", None)
    assert [method.width for method in load_methods(["swap", "delete", "split", "keyboard", "ocr"])] == [2, 1, 1, 1, 1]


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nlpaug.augmenter", None)
    with pytest.raises(InputError) as caught:
        load_methods(["swop", "spelling", "swap", "nlpaug/char/OcrAug"])
    first, *missing = caught.value.problems
    assert "'swop' is no method" in first
    for name, line in zip(("spelling", "nlpaug/char/OcrAug"), missing, strict=True):
        assert line.startswith(f"--aug.methods: {name} needs nlpaug (")
        assert line.endswith("pip install 'lightning_hpo[augment]'")
