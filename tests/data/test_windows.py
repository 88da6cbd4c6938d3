from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.windows import Windows
from lightning_hpo.exceptions import InputError

from .conftest import WORDS


def _windows(tokenizer: PreTrainedTokenizerFast, max_length: int = 16, stride: int = 4) -> Windows:
    template = PairTemplate.of(tokenizer)
    return Windows(tokenizer.backend_tokenizer, template, max_length=max_length, stride=stride)


def _roberta() -> PreTrainedTokenizerFast:
    vocabulary = {token: place for place, token in enumerate(["<s>", "</s>", "<pad>", "<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<pad>", model_input_names=["input_ids", "attention_mask"]
    )


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_short_pair_has_the_tokens_of_the_tokenizer(tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    fast = tokenizer if kind == "bert" else _roberta()
    windows = _windows(fast)
    criterion, post = windows.tokenize(["w1 w2", "w3 w4 w5"])
    batch = windows.collate([windows.compose(criterion, post)])
    expected = fast("w1 w2", "w3 w4 w5", truncation=False, padding=False)
    assert set(batch) == set(expected)
    assert ("token_type_ids" in batch) == (kind == "bert")
    for name, values in expected.items():
        assert batch[name][0, : len(values)].tolist() == values
    assert set(batch["input_ids"][0, len(expected["input_ids"]) :].tolist()) <= {windows.pad_id}


def test_batch_is_padded_to_its_longest_window(tokenizer: PreTrainedTokenizerFast) -> None:
    windows = _windows(tokenizer, max_length=30)
    criterion, short, long = windows.tokenize(["w1", "w2", " ".join(WORDS[:10])])
    made = [windows.compose(criterion, post) for post in (short, long)]
    batch = windows.collate(made)
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 14]
    offsets = windows.offsets(made)
    assert offsets.shape == (2, 16, 2)
    assert offsets[0, 3].tolist() == [0, 2]
    assert (offsets[0, [0, 1, 2, 4, 5, 15]] == -1).all()
    assert batch["input_ids"].dtype == torch.long


@given(tokens=st.integers(0, 200), max_length=st.integers(8, 40), stride=st.integers(0, 30), words=st.integers(1, 5))
def test_windows_cover_the_post_and_overlap_by_the_stride(
    tokens: int, max_length: int, stride: int, words: int
) -> None:
    windows = _windows(_ROBERTA, max_length, stride)
    (criterion,) = windows.tokenize([" ".join(WORDS[:words])])
    room = windows.room(criterion)
    if room <= stride:
        with pytest.raises(InputError, match=r"--data\.max_length.*--data\.stride"):
            windows.check_criteria([criterion])
        return
    ranges = windows.ranges(tokens, criterion)
    assert (ranges[0][0], ranges[-1][1]) == (0, tokens)
    assert all(stop - first <= room for first, stop in ranges)
    for (_, stop), (first, _) in pairwise(ranges):
        assert stop - first == stride
    if tokens:
        assert all(stop > first for first, stop in ranges)


def test_invalid_lengths_are_errors_that_name_the_flag(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match=r"--data\.max_length: got 129; the encoder reads at most 128"):
        _windows(tokenizer, 129)
    with pytest.raises(InputError, match=r"--data\.stride: got -1"):
        _windows(tokenizer, 100, -1)
    windows = _windows(tokenizer, 16, 12)
    with pytest.raises(InputError, match=r"use 18 or more, or --data\.stride must be below 11"):
        windows.check_criteria(windows.tokenize(["w1 w2"]))
    windows = _windows(tokenizer, 4, 0)
    with pytest.raises(InputError, match=r"no --data\.stride is small enough"):
        windows.check_criteria(windows.tokenize(["w1 w2 w3"]))


_ROBERTA = _roberta()
