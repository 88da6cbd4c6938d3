import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.tokenization import TokenizedText, tokenize


def test_truncation_and_padding_of_the_file_are_ignored(tokenizer: PreTrainedTokenizerFast) -> None:
    long, short = tokenize(tokenizer.backend_tokenizer, ["w1 " * 50, "w2"])
    assert (len(long), len(short)) == (50, 1)
    assert long.offsets[-1].tolist() == [147, 149]


def test_tokens_are_those_of_the_fast_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["w1  w2, so sad [SEP]", "Ünïcode w3\nw4", ""]
    as_text = {"add_special_tokens": False, "split_special_tokens": True, "truncation": False, "padding": False}
    expected = tokenizer(texts, return_offsets_mapping=True, **as_text)
    made = tokenize(tokenizer.backend_tokenizer, texts)
    assert [text.ids.tolist() for text in made] == expected["input_ids"]
    assert [[tuple(span) for span in text.offsets.tolist()] for text in made] == expected["offset_mapping"]


def test_offsets_exclude_white_space() -> None:
    backend = Tokenizer(models.BPE({"Ġ": 0, "a": 1, "Ċ": 2, "b": 3, "Ġa": 4}, [("Ġ", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    (text,) = tokenize(backend, ["b a\n b"])
    assert text.offsets.tolist() == [[0, 1], [2, 3], [-1, -1], [-1, -1], [5, 6]]


def _text() -> TokenizedText:
    offsets = [(0, 3), (4, 6), (-1, -1), (8, 9), (9, 12)]
    return TokenizedText(np.arange(5, dtype=np.int32), np.array(offsets, np.int32))


def test_tokens_of_a_span() -> None:
    text = _text()
    assert text.tokens_of((4, 9)) == (1, 3)
    assert text.tokens_of((2, 5)) == (0, 1)
    assert text.tokens_of((6, 8)) is None
    assert text.tokens_of((0, 100)) == (0, 4)


def test_part_keeps_its_offsets() -> None:
    assert _text().part(1, 3).characters() == (4, 6)
    assert _text().characters() == (0, 12)
    assert _text().part(2, 3).characters() == (0, 0)
    assert len(_text().part(3, 5)) == 2


def _special(model: models.Model, *tokens: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    return tokenizer


def _unigram() -> Tokenizer:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((sign, -2.0) for sign in "\u2581<>/sab")]
    tokenizer = _special(models.Unigram(pieces, unk_id=0), "<unk>", "<s>", "</s>")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _word_piece() -> Tokenizer:
    words = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "sep", "[", "]", "a", "b"]
    tokenizer = _special(
        models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"), *words[:4]
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "text", "special"),
    [(_unigram(), "a</s>b <s>", {1, 2}), (_word_piece(), "a [SEP] b [MASK]", {1, 2, 3})],
)
def test_special_tokens_that_a_text_spells_are_no_special_tokens(
    tokenizer: Tokenizer, text: str, special: set[int]
) -> None:
    [found, other] = tokenize(tokenizer, [text, "\u4e00 a"])
    assert not special & set(found.ids.tolist())
    assert {tokenizer.token_to_id("a"), tokenizer.token_to_id("b")} <= set(found.ids.tolist())
    assert found.offsets.shape == (len(found.ids), 2)
    unknown = tokenizer.token_to_id("<unk>") if special == {1, 2} else tokenizer.token_to_id("[UNK]")
    assert unknown in other.ids.tolist()  # an unknown character is still one
    assert tokenizer.token_to_id("a") in other.ids.tolist()
