"""A small corpus with irregular posts and annotations, and a tokenizer that knows its words."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from lightning_hpo.data.hub import load_tokenizer

# Deterministic examples, without a time limit.
settings.register_profile("data", deadline=None, derandomize=True, database=None)
settings.load_profile("data")

CRITERIA = {"SAD": "the writer is sad", "TIRED": "the writer is tired"}
WORDS = [f"w{number}" for number in range(60)]
_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = [
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"),
]

WriteCsv = Callable[[str, Sequence[Sequence[str]]], Path]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: for such small tensors more are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Return a function that writes rows to a CSV file in the test's folder."""

    def write(name: str, rows: Sequence[Sequence[str]]) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a WordPiece tokenizer like BERT's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = [*WORDS, "the", "writer", "is", "sad", "tired", "i", "am", "so"]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys([*_SPECIAL_TOKENS, *_LETTERS, *words]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Some encoders' files enable these, and the project must ignore them.
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    BertTokenizer(tokenizer_object=backend, model_max_length=128).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `tokenizer_folder`."""
    return load_tokenizer(str(tokenizer_folder))


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpus of 40 posts: a third sad, a third tired, some long; some sentences are explicit negatives."""
    folder = tmp_path_factory.mktemp("corpus")
    posts, annotations = [("post_id", "text")], [("post_id", "sentence_text", "DSM5_symptom", "status")]
    for number in range(40):
        words = [WORDS[(number * 7 + place) % 60] for place in range(90 if number % 9 == 0 else 4 + number % 13)]
        middle = len(words) // 2
        sentence = {0: "i am so sad", 1: "i am so tired", 2: "so is the writer"}[number % 3]
        posts.append((f"p{number}", f"{' '.join(words[:middle])}. {sentence}. {' '.join(words[middle:])}"))
        if number % 3 < 2:
            annotations.append((f"p{number}", sentence, ("SAD", "TIRED")[number % 3], "1"))
        if number % 5 == 0:
            annotations.append((f"p{number}", words[0], ("TIRED", "SAD")[number % 3 != 0], "0"))
    for name, rows in (("posts.csv", posts), ("annotations.csv", annotations)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    (folder / "criteria.yaml").write_text("".join(f"{key}: {text}\n" for key, text in CRITERIA.items()))
    return folder
