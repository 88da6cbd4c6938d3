from pathlib import Path

import pytest

from lightning_hpo.data.tokenizers import load_tokenizer
from lightning_hpo.exceptions import InputError


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such", "a/b/c"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match=r"--model\.name: there is no folder"):
        load_tokenizer(name)


def test_an_encoder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_hpo.data.tokenizers.local_files_only", lambda _: True)
    with pytest.raises(InputError, match=r"--model\.name: no tokenizer can be loaded from 'no-such/encoder'") as caught:
        load_tokenizer("no-such/encoder")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--model\.name: no tokenizer"):
        load_tokenizer(str(tmp_path))
