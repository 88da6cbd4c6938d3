from pathlib import Path

import pytest

from lightning_hpo.data.criteria import DSM5_CRITERIA, read_criteria
from lightning_hpo.exceptions import InputError


def test_default_criteria_are_those_of_dsm5() -> None:
    assert read_criteria(None) == DSM5_CRITERIA
    assert len(DSM5_CRITERIA) == 9


def test_ids_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "criteria.yaml"
    path.write_text("NO: The writer refuses.\n1: 'The writer: counts.'\n")
    assert read_criteria(path) == {"NO": "The writer refuses.", "1": "The writer: counts."}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a mapping"),
        ("- a\n- b\n", "not a mapping"),
        ("A: one\nA: two\n", "line 2: this id occurs twice"),
        ("A: one\nB:\n", "line 2: the id or the text is empty"),
        ("A: one\nB: [x]\n", "line 2: not an id and a text"),
        ("A: one: two\n", "line 1: not valid YAML"),
    ],
)
def test_invalid_criteria_file_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "criteria.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_criteria(path)
