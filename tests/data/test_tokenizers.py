from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.tokenizers import load_tokenizer, tokenize
from lightning_hpo.exceptions import InputError


def test_nothing_is_cut_or_padded_whatever_the_file_asks_for(tokenizer: PreTrainedTokenizerFast) -> None:
    long, short = tokenize(tokenizer, ["w1 " * 50, "w2"])
    assert (len(long), len(short)) == (50, 1)
    assert long.offsets[-1].tolist() == [147, 149]


def test_white_space_is_no_part_of_a_token() -> None:
    backend = Tokenizer(models.BPE({"Ġ": 0, "a": 1, "Ċ": 2, "b": 3, "Ġa": 4}, [("Ġ", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend)  # type: ignore[no-untyped-call]
    (text,) = tokenize(fast, ["b a\n b"])
    assert text.offsets.tolist() == [[0, 1], [2, 3], [-1, -1], [-1, -1], [5, 6]]


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
