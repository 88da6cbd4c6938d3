"""A small BERT for the demo, made in seconds from made-up sentences alone."""

import math
import re
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertSelfAttention

from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.demo_pretraining import pretrain
from lightning_hpo.data.dsm5 import DSM5_CRITERIA

__all__ = ["write_encoder"]

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LONGEST = 512
_WIDTH, _LAYERS, _HEADS = 128, 2, 4
# Features of an embedding: first what a word is about, then the word itself, then its place.
_TOPIC, _PLACE = slice(0, 64), slice(96, 128)
_STEPS = 220


def write_encoder(folder: Path, seed: int, *, steps: int = _STEPS) -> None:
    """Write a small BERT and its tokenizer, as `AutoModel` and `AutoTokenizer` read them.

    It has never seen the demo's posts or annotations, only other sentences of the same kind.

    Args:
        folder: Where to write config.json, model.safetensors and the tokenizer's files.
        seed: Decides everything.
        steps: Steps of its pretraining.
    """
    texts = DemoCorpus(600, seed + 1).texts()
    sentences = [line for text in texts for line in re.split(r"(?<=\.) ", text)]
    tokenizer = _tokenizer([*texts, *DSM5_CRITERIA.values()])
    # A generator of its own: the caller's random state is nobody's business here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = _encoder(len(tokenizer))
        with torch.no_grad():
            _start_embeddings(encoder, _topics(tokenizer, sentences))
            _start_attention(encoder)
        pretrain(encoder, tokenizer, steps=steps, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    encoder.config.architectures = ["BertModel"]
    encoder.config.save_pretrained(folder)
    # transformers' own way of saving draws a progress bar.
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Whole words where the texts have them, letters for all others.

    A trained vocabulary breaks ties by chance, and the same seed would not give the same files.
    """
    words = sorted(set(re.findall(r"\w+|[^\w\s]", " ".join(texts).lower())))
    signs = sorted({*string.ascii_lowercase, *string.digits, *string.punctuation})
    ordered = dict.fromkeys([*_SPECIAL_TOKENS, *signs, *(f"##{sign}" for sign in signs), *words])
    model = models.WordPiece({token: place for place, token in enumerate(ordered)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    fast: PreTrainedTokenizerFast = BertTokenizer(tokenizer_object=tokenizer, model_max_length=_LONGEST)
    return fast


def _encoder(vocabulary: int) -> BertModel:
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=2 * _WIDTH,
        max_position_embeddings=_LONGEST,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertModel(config, add_pooling_layer=False)


def _topics(tokenizer: PreTrainedTokenizerFast, sentences: Sequence[str]) -> Tensor:
    """Unit vectors, alike for words that stand in the same sentences: the PPMI of word pairs, factorised.

    Returns:
        Shape [vocabulary, features of a topic].
    """
    together = np.zeros((len(tokenizer), len(tokenizer)))
    for ids in tokenizer(list(sentences), add_special_tokens=False)["input_ids"]:
        words = sorted(set(ids))
        together[np.ix_(words, words)] += 1
    alone = np.maximum(np.diag(together), 1.0)
    np.fill_diagonal(together, 0)
    ratio = together * len(sentences) / np.outer(alone, alone)
    ppmi = np.where(together < 2, 0.0, np.log(np.maximum(ratio, 1.0)))
    # Symmetric, so its eigenvectors are the singular vectors; torch keeps to the threads that the caller allows it.
    values, vectors = torch.linalg.eigh(torch.from_numpy(ppmi))
    largest = values.abs().argsort(descending=True)[: _TOPIC.stop]
    topics = vectors[:, largest] * values[largest].abs().sqrt()
    return torch.nn.functional.normalize(topics, dim=1, eps=1e-6).float()


def _start_embeddings(encoder: BertModel, topics: Tensor) -> None:
    words: Tensor = encoder.embeddings.word_embeddings.weight
    words.normal_(0, 0.1)
    words[:, _TOPIC] = topics * 0.8
    words[:, _PLACE] *= 0.3
    encoder.embeddings.token_type_embeddings.weight.normal_(0, 0.04)
    places = encoder.embeddings.position_embeddings.weight
    wave_lengths = torch.logspace(math.log10(4), math.log10(60), 16)
    angles = 2 * math.pi * torch.arange(float(_LONGEST))[:, None] / wave_lengths
    places.zero_()
    places[:, _PLACE] = 0.1 * torch.cat([angles.sin(), angles.cos()], dim=1)


def _start_attention(encoder: BertModel) -> None:
    """Let tokens look at like words with half of the heads, and at their neighbours with the others.

    Keys that equal the queries are what attention in trained language models looks like (Trockman and Kolter, Mimetic
    Initialization of Self-Attention Layers, ICML 2023); from there, seconds of training are enough.
    """
    size = _WIDTH // _HEADS
    for attention in (module for module in encoder.modules() if isinstance(module, BertSelfAttention)):
        projection = torch.randn(_HEADS, size, _WIDTH) / math.sqrt(_WIDTH)
        projection[: _HEADS // 2, :, _PLACE] = 0
        projection[_HEADS // 2 :] = 0.02 * torch.randn(_HEADS // 2, size, _WIDTH)
        projection[_HEADS // 2 :, :, _PLACE] += 0.7 * torch.eye(size)
        start = 1.3 * projection.reshape(_WIDTH, _WIDTH)
        attention.query.weight.copy_(start)
        attention.key.weight.copy_(start)
