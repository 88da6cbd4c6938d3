"""A Hugging Face cache with tiny random encoders under real names, so that the shipped configs run unchanged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    ElectraConfig,
    ElectraModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from lightning_hpo.agents.network.encoder import quiet_transformers

_COMMIT = "0" * 40
ENCODERS = {
    "bert-base-uncased": "bert",
    "bert-large-uncased": "bert",
    "roberta-base": "roberta",
    "roberta-large": "roberta",
    "microsoft/deberta-v3-base": "deberta",
    "microsoft/deberta-v3-large": "deberta",
    "google/electra-base-discriminator": "electra",
    "google/electra-large-discriminator": "electra",
    "xlm-roberta-base": "xlm-roberta",
}

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 520,
    "pad_token_id": 0,
}


def write_hub(cache: Path, texts: list[str], layers: int = 1) -> None:
    """Write the encoders of the shipped search spaces, with a tokenizer trained on the texts."""
    tokenizer = _tokenizer(texts)
    sizes = {**_SIZES, "vocab_size": len(tokenizer), "num_hidden_layers": layers}
    torch.manual_seed(0)
    families: dict[str, Callable[[], PreTrainedModel]] = {
        "bert": lambda: BertModel(BertConfig(**sizes)),
        "roberta": lambda: RobertaModel(RobertaConfig(**sizes)),
        "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**sizes)),
        "deberta": lambda: DebertaV2Model(DebertaV2Config(**sizes)),
        "electra": lambda: ElectraModel(ElectraConfig(**sizes, embedding_size=16)),
    }
    for name, family in ENCODERS.items():
        encoder = families[family]()
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(_COMMIT, encoding="utf-8")
        with quiet_transformers():
            encoder.save_pretrained(repository / "snapshots" / _COMMIT)
        tokenizer.save_pretrained(repository / "snapshots" / _COMMIT)


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=_SPECIAL))
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def encoder_in(cache: Path, name: str) -> str:
    """Return the folder of an encoder, for processes that have already read the Hugging Face settings."""
    return str(cache / f"models--{name.replace('/', '--')}" / "snapshots" / _COMMIT)
