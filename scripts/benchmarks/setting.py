"""What all contenders of the comparison are given: the same pairs, encoder, epochs and device; and what they give back.

A contender is a program of its own, so that its memory and its caches are its own: it reads a folder that `prepare` has
written, and writes its `Result` there.
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
    """One comparison.

    Args:
        folder: Where everything lies, and where results go.
        train_pairs: Pairs that are trained on; each fits into one window.
        epochs: Of a trial.
        trials: Of each contender.
        batch_size: Pairs in a training batch.
        max_length: Most tokens of a pair.
        lr: The learning rate.
        layers: Of the encoder.
        width: Of the encoder, a multiple of 64.
        val_fraction: Share of the posts in the project's validation part.
        test_fraction: Share of the posts in the project's test part.
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
        """(criterion, post, met) of each pair of a part: train or val."""
        return [(str(c), str(p), int(m)) for c, p, m in json.loads((self.folder / f"{part}.json").read_text("utf-8"))]


@dataclass
class Result:
    """What a contender measured.

    Args:
        trials_s: Seconds of each trial, from its start to that of the next one or to the end.
        whole_s: Seconds from the first trial's start to the last one's end, where trials run at the same time.
        between_s: Seconds from the end of each trial to the first batch of the next one.
        samples: Pairs trained on in a trial.
        tokens: Tokens that a trial trains on, padding among them.
        padding: How many of these are padding.
        gpu_mib: The most memory of a graphics gpu that a process had in use for tensors; 0 without a gpu.
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
        """Leave the figures for whoever compares."""
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
        """Take the time of a trial's first batch."""
        if self._ended:
            self.between_s.append(time.perf_counter() - self._ended)
            self._ended = 0.0

    def ended(self) -> None:
        """Take the time of a trial's end."""
        self._ended = time.perf_counter()


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of every contender that has none of its own."""
    return functional.cross_entropy(logits.float(), labels)


class Classifier(nn.Module):
    """The encoder with a linear head over its first token, for the hand-written loops."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        with quiet_transformers():
            self.encoder = BertModel.from_pretrained(encoder, add_pooling_layer=False).train()
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Give logits [B, 2]."""
        logits: torch.Tensor = self.head(self.encoder(**inputs).last_hidden_state[:, 0])
        return logits


def read_setting(folder: str) -> Setting:
    """The setting that `prepare` has written."""
    values = json.loads(Path(folder, "setting.json").read_text(encoding="utf-8"))
    return Setting(**{**values, "folder": Path(folder)})


def prepare(setting: Setting, posts: Path, annotations: Path, criteria: Path | None) -> Setting:
    """Write a corpus whose split gives exactly the wanted pairs, the pairs themselves, and an encoder.

    Args:
        setting: The setting.
        posts: CSV of the posts to choose from.
        annotations: CSV of their annotations.
        criteria: YAML of the criteria, of which the first five are taken; None: those of DSM-5.

    Returns:
        The setting, with the fractions that give these pairs.
    """
    known = dict(list(read_criteria(criteria).items())[:_CRITERIA])
    texts = pd.read_csv(posts, dtype=str, keep_default_na=False)
    rows = pd.read_csv(annotations, dtype=str, keep_default_na=False)
    rows = rows[rows["DSM5_symptom"].isin(list(known)) & rows["post_id"].isin(texts["post_id"])]
    tokenizer = write_encoder(
        setting.folder / "encoder",
        [*known.values(), *texts["text"]],
        setting.max_length,
        layers=setting.layers,
        width=setting.width,
    )
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
    """As few posts as give the pairs to train on, and their parts."""
    for count in range(_VAL_POSTS + _TEST_POSTS + 1, len(posts) + 1):
        chosen = posts[:count]
        texts = Posts.of(dict(zip(chosen["post_id"], chosen["text"], strict=True)))
        parts = split_posts(texts, seed=SEED, val_fraction=_VAL_POSTS / count, test_fraction=_TEST_POSTS / count)
        train = rows[rows["post_id"].isin(parts.train)]
        if len(train.drop_duplicates(["post_id", "DSM5_symptom"])) >= setting.train_pairs:
            return chosen, parts
    raise SystemExit(f"--posts: too few annotated posts fit into a window to give {setting.train_pairs} pairs")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_encoder(
    folder: Path, texts: Sequence[str], longest: int, *, layers: int = 4, width: int = 256
) -> PreTrainedTokenizerFast:
    """Write an encoder with random weights, its heads 64 wide, and a WordPiece tokenizer of the texts."""
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
