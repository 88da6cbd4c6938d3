"""A tiny random BERT with a tokenizer of whole words, a tiny corpus, and a stand-in for a data module."""

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, PreTrainedConfig, PreTrainedTokenizerFast

from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.data.pairs import Pair, PairTable

WORDS = ["i", "am", "so", "tired", "all", "day", "and", "sleep", "no", "more", "today", "the", "dog", "is", "fine"]
CRITERIA = {"FATIGUE": "so tired", "SLEEP_ISSUES": "no sleep"}
LONG_POST = " ".join(WORDS * 6)


def write_tiny_encoder(folder: Path, config: PreTrainedConfig | None = None, **tokens: Any) -> str:
    """Write the encoder and return its folder.

    `config` describes an encoder other than the BERT. `tokens` are arguments of the tokenizer that differ; without
    special tokens (`cls_token=None`), it encodes a pair as two texts in a row.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: place for place, word in enumerate([*special, *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if tokens.get("cls_token", "[CLS]") is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    torch.manual_seed(0)
    config = config or BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=1.0,
    )
    with quiet_transformers():
        AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
        usual = {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "model_max_length": 64,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        }
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=tokenizer, **{**usual, **tokens}
        ).save_pretrained(folder)
    return str(folder)


def tiny_data(encoder: str) -> Any:
    """Return the attributes of a data module that saving a model reads."""
    corpus = SimpleNamespace(criteria=CRITERIA)
    return SimpleNamespace(tokenizer=encoder, max_length=24, stride=4, corpus=corpus)


def pair_table(rows: Sequence[tuple[str, str, bool] | tuple[str, str, bool, tuple[int, int]]]) -> PairTable:
    """Return pairs, given post, criterion, whether it is met and its evidence."""
    annotated = [Pair(post, criterion, met, tuple(spans)) for post, criterion, met, *spans in rows]
    ids, criteria = (list(dict.fromkeys(str(row[place]) for row in rows)) for place in (0, 1))
    columns = (
        [ids.index(str(row[0])) for row in rows],
        [criteria.index(str(row[1])) for row in rows],
        list(range(len(rows))),
    )
    return PairTable(ids, criteria, annotated, *(np.array(column) for column in columns))


def write_tiny_corpus(folder: Path, posts: int = 30) -> None:
    """Write different posts: a third meets FATIGUE, a third SLEEP_ISSUES, and a third none."""
    draw = random.Random(17)
    evidence = {"FATIGUE": "so tired", "SLEEP_ISSUES": "no sleep"}
    with (folder / "posts.csv").open("w") as texts, (folder / "annotations.csv").open("w") as labels:
        texts.write("post_id,text\n")
        labels.write("post_id,sentence_text,DSM5_symptom,status\n")
        for number in range(posts):
            words = draw.sample(WORDS, 8)
            for criterion, sentence in list(evidence.items())[number % 3 : number % 3 + 1]:
                words.insert(4, sentence)
                labels.write(f"p{number},{sentence},{criterion},1\n")
            texts.write(f"p{number},{' '.join(words)}\n")
    (folder / "criteria.yaml").write_text("".join(f"{key}: {text}\n" for key, text in CRITERIA.items()))


def tiny_config(agent: str, data: str, **model: Any) -> dict[str, Any]:
    """Return the config of a study over the encoder and the corpus in the current folder."""
    files = {"posts": "posts.csv", "annotations": "annotations.csv", "criteria": "criteria.yaml"}
    return {
        "model": {"class_path": f"lightning_hpo.agents.{agent}", "init_args": {"name": "encoder", **model}},
        "data": {
            "class_path": f"lightning_hpo.data.{data}",
            "init_args": {**files, "max_length": 24, "stride": 4, "val_fraction": 0.3},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0},
        "search_space": {"model.optim.lr": {"low": 1.0e-3, "high": 1.0e-1, "log": True}},
    }
