"""Input and output of all contenders of the comparison: the same pairs, encoder, epochs and device; a `Result`.

Each contender is a separate program with separate memory and caches. It reads a folder written by `prepare`, and writes
its `Result` to that folder.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.data.criteria import read_criteria
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.splits import Split, split_posts

__all__ = ["Result", "Setting", "loss_of", "prepare", "read_setting", "write_encoder"]

SEED = 17
_CRITERIA, _VAL_POSTS, _TEST_POSTS = 5, 8, 1
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_VOCABULARY = 8000


@dataclass(frozen=True)
class Setting:
    """Settings of one comparison.

    Args:
        folder: Folder of the inputs and results.
        train_pairs: Number of training pairs; each fits into one window.
        epochs: Epochs per trial.
        trials: Trials per contender.
        batch_size: Pairs per training batch.
        max_length: Maximum number of tokens per pair.
        lr: Learning rate.
        layers: Layers of the encoder.
        width: Width of the encoder, a multiple of 64.
        val_fraction: Share of the posts in the project's validation split.
        test_fraction: Share of the posts in the project's test split.
    """

    folder: Path
    train_pairs: int = 160
    epochs: int = 2
    trials: int = 2
    batch_size: int = 16
    max_length: int = 512
    lr: float = 1e-4
    layers: int = 4
    width: int = 256
    val_fraction: float = 0.0
    test_fraction: float = 0.0

    @property
    def encoder(self) -> str:
        """Folder of the encoder and its tokenizer."""
        return str(self.folder / "encoder")

    def pairs(self, part: str) -> list[tuple[str, str, int]]:
        """Return (criterion, post, met) for each pair of a split: train or val."""
        return [(str(c), str(p), int(m)) for c, p, m in json.loads((self.folder / f"{part}.json").read_text("utf-8"))]


@dataclass
class Result:
    """Measurements of a contender.

    Args:
        trials_s: Seconds of each trial, from its start to the start of the next trial or the end.
        whole_s: Seconds from the start of the first trial to the end of the last, if trials run at the same time.
        between_s: Seconds from the end of each trial to the first batch of the next.
        samples: Training pairs per trial.
        tokens: Training tokens per trial, including padding.
        padding: Padding tokens per trial.
        gpu_mib: Peak GPU memory of a process for tensors; 0 without a GPU.
    """

    trials_s: list[float] = field(default_factory=list)
    whole_s: float = 0.0
    between_s: list[float] = field(default_factory=list)
    samples: int = 0
    tokens: int = 0
    padding: int = 0
    gpu_mib: float = 0.0

    _ended: float = field(default=0.0, repr=False)

    def write(self, setting: Setting) -> None:
        """Write the measurements to `result.json`."""
        if torch.cuda.is_available():
            self.gpu_mib = self.gpu_mib or torch.cuda.max_memory_allocated() / 2**20
        figures = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
        (setting.folder / "result.json").write_text(json.dumps(figures), encoding="utf-8")

    def count(self, batch: Mapping[str, Any]) -> None:
        """Count a training batch."""
        mask = batch["attention_mask"]
        self.samples += len(mask)
        self.tokens += mask.numel()
        self.padding += int(mask.numel() - mask.sum())

    def first_batch(self) -> None:
        """Record the time of the first batch of a trial."""
        if self._ended:
            self.between_s.append(time.perf_counter() - self._ended)
            self._ended = 0.0

    def ended(self) -> None:
        """Record the time of the end of a trial."""
        self._ended = time.perf_counter()


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of the contenders with a hand-written loop."""
    return functional.cross_entropy(logits.float(), labels)


class Classifier(nn.Module):
    """Encoder with a linear head over the first token, for the hand-written loops."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        with quiet_transformers():
            self.encoder = BertModel.from_pretrained(encoder, add_pooling_layer=False).train()
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return logits [B, 2]."""
        logits: torch.Tensor = self.head(self.encoder(**inputs).last_hidden_state[:, 0])
        return logits


def read_setting(folder: str) -> Setting:
    """Read the setting written by `prepare`."""
    values = json.loads(Path(folder, "setting.json").read_text(encoding="utf-8"))
    return Setting(**{**values, "folder": Path(folder)})


def prepare(setting: Setting, posts: Path, annotations: Path, criteria: Path | None) -> Setting:
    """Write a corpus whose split yields exactly the requested pairs, the pairs themselves, and an encoder.

    Args:
        setting: Setting of the comparison.
        posts: CSV file of posts.
        annotations: CSV file of annotations.
        criteria: YAML file of criteria, of which the first five are used, or None for DSM-5.

    Returns:
        The setting with the fractions that yield these pairs.
    """
    known = dict(list(read_criteria(criteria).items())[:_CRITERIA])
    texts = pd.read_csv(posts, dtype=str, keep_default_na=False)
    rows = pd.read_csv(annotations, dtype=str, keep_default_na=False)
    rows = rows[rows["DSM5_symptom"].isin(list(known)) & rows["post_id"].isin(texts["post_id"])]
    size = {"layers": setting.layers, "width": setting.width}
    training_texts = [*known.values(), *texts["text"]]
    tokenizer = write_encoder(setting.folder / "encoder", training_texts, setting.max_length, **size)
    room = setting.max_length - max(len(tokenizer(text)["input_ids"]) for text in known.values()) - 1
    fits = texts["text"].map(lambda text: len(tokenizer(text, verbose=False)["input_ids"]) <= room)
    fitting = texts[texts["post_id"].isin(rows["post_id"]) & fits].drop_duplicates("text")
    chosen, parts = _chosen(setting, fitting.sample(frac=1.0, random_state=SEED), rows)
    found = replace(setting, val_fraction=_VAL_POSTS / len(chosen), test_fraction=_TEST_POSTS / len(chosen))
    keys = list(zip(rows["post_id"], rows["DSM5_symptom"], strict=True))
    train = list(dict.fromkeys(key for key in keys if key[0] in parts.train))[: setting.train_pairs]
    kept = rows[[key in train or key[0] in parts.val for key in keys]]
    chosen.to_csv(setting.folder / "posts.csv", index=False)
    kept.to_csv(setting.folder / "annotations.csv", index=False)
    _write(setting.folder / "criteria.yaml", yaml.safe_dump(known, sort_keys=False, allow_unicode=True))
    met = set(zip(kept["post_id"], kept["DSM5_symptom"], kept["status"], strict=True))
    text_of = dict(zip(chosen["post_id"], chosen["text"], strict=True))
    for part, pairs in (("train", train), ("val", [(post, criterion) for post in parts.val for criterion in known])):
        table = [(known[criterion], text_of[post], int((post, criterion, "1") in met)) for post, criterion in pairs]
        _write(setting.folder / f"{part}.json", json.dumps(table))
    _write(setting.folder / "setting.json", json.dumps({**asdict(found), "folder": str(setting.folder)}))
    return found


def _chosen(setting: Setting, posts: pd.DataFrame, rows: pd.DataFrame) -> tuple[pd.DataFrame, Split]:
    """Return the smallest number of posts that yields the training pairs, and their split."""
    for count in range(_VAL_POSTS + _TEST_POSTS + 1, len(posts) + 1):
        chosen = posts[:count]
        texts = Posts.of(dict(zip(chosen["post_id"], chosen["text"], strict=True)))
        parts = split_posts(texts, seed=SEED, val_fraction=_VAL_POSTS / count, test_fraction=_TEST_POSTS / count)
        train = rows[rows["post_id"].isin(parts.train)]
        if len(train.drop_duplicates(["post_id", "DSM5_symptom"])) >= setting.train_pairs:
            return chosen, parts
    raise SystemExit(
        f"--posts: too few annotated posts fit into one window for {setting.train_pairs} training pairs; use more posts"
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_encoder(
    folder: Path, texts: Sequence[str], longest: int, *, layers: int = 4, width: int = 256
) -> PreTrainedTokenizerFast:
    """Write an encoder with random weights and 64-wide heads, and a WordPiece tokenizer trained on the texts."""
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=_SPECIAL, show_progress=False)
    )
    marks = [(mark, words.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words,
        model_max_length=longest,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(SEED)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=longest,
    )
    with quiet_transformers():
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return tokenizer
