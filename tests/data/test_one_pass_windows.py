import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.one_pass_windows import OnePassWindows
from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.windows import Part
from lightning_hpo.exceptions import InputError
from tests.data.test_windows import _roberta

from .conftest import WORDS

POST = " ".join(WORDS[:9])


def _windows(tokenizer: PreTrainedTokenizerFast, max_length: int = 16, stride: int = 4) -> OnePassWindows:
    template = PairTemplate.of(tokenizer)
    return OnePassWindows(tokenizer.backend_tokenizer, template, max_length=max_length, stride=stride)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_text_alone_is_encoded_as_its_tokenizer_does(tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    tokenizer = tokenizer if kind == "bert" else _roberta()
    windows = _windows(tokenizer)
    post, criterion = windows.tokenize([POST, "w3 w4"])
    tensors = windows.inputs([Part("p", post, "c", criterion)]).tensors
    for text, names in (
        (POST, ("input_ids", "attention_mask", "token_type_ids")),
        ("w3 w4", ("criterion_ids", "criterion_mask", "criterion_types")),
    ):
        expected = tokenizer(text, padding=False, truncation=False)
        length = len(expected["input_ids"])
        for name, own in zip(names, ("input_ids", "attention_mask", "token_type_ids"), strict=True):
            assert (name in tensors) == (own in expected)
            if own in expected:
                assert tensors[name][0, :length].tolist() == expected[own]
                assert tensors[name].shape[1] % 8 == 0


def test_each_part_and_each_criterion_is_read_once(tokenizer: PreTrainedTokenizerFast) -> None:
    windows = _windows(tokenizer)
    one, other, sad, tired = windows.tokenize(["w1 w2 w3", "w4", "sad", "so tired"])
    rows = [("one", one, "SAD", sad), ("one", one, "TIRED", tired), ("other", other, "TIRED", tired)]
    made = windows.inputs([Part(*row) for row in rows], offsets=True)
    assert len(made.tensors["input_ids"]) == len(made.tensors["criterion_ids"]) == 2
    assert made.tensors["row_windows"].tolist() == [0, 0, 1]
    assert made.tensors["row_criteria"].tolist() == [0, 1, 1]
    assert made.offsets is not None
    assert made.offsets.shape == (3, 8, 2)
    assert torch.equal(made.offsets[0], made.offsets[1])
    for row, post in enumerate((one, one, other)):
        start = made.post_starts[row]
        assert made.offsets[row, start : start + len(post)].tolist() == post.offsets.tolist()


def test_windows_have_the_same_room_for_each_criterion(tokenizer: PreTrainedTokenizerFast) -> None:
    windows = _windows(tokenizer, max_length=10, stride=2)
    short, long = windows.tokenize(["w1", "w1 w2 w3 w4 w5 w6 w7 w8"])
    assert windows.room(short) == windows.room(long) == 8
    assert windows.ranges(20, long) == [(0, 8), (6, 14), (12, 20)]
    assert windows.fits(long)
    assert not windows.fits(windows.tokenize([POST])[0])


@pytest.mark.parametrize(("stride", "least"), [(4, 11), (9, 12)])
def test_max_length_too_small_names_one_that_works(tokenizer: PreTrainedTokenizerFast, stride: int, least: int) -> None:
    criteria = _windows(tokenizer).tokenize(["w1", POST])
    with pytest.raises(InputError, match=rf"^--data.max_length: {least - 1} is too small: .* use {least} or more$"):
        _windows(tokenizer, max_length=least - 1, stride=stride).check_criteria(criteria)
    _windows(tokenizer, max_length=least, stride=stride).check_criteria(criteria)
