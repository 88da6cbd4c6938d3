"""A small BERT for the demo, pretrained in seconds on synthetic sentences."""

import itertools
import math
import random
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, BertTokenizer, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertSelfAttention

from lightning_hpo.data.criteria import DSM5_CRITERIA
from lightning_hpo.data.demo_corpus import EVERYDAY, NOT_EVIDENCE, SYMPTOMS, DemoCorpus, sentence

__all__ = ["pretrain", "write_encoder"]

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LONGEST = 512
_WIDTH, _LAYERS, _HEADS = 128, 2, 4
# Features of an embedding: topic of the word, then the word itself, then its position.
_TOPIC, _PLACE = slice(0, 64), slice(96, 128)
_STEPS = 220

_BATCH = 32
_RATE = 3e-3
# Tag of a token: outside the related sentence, or its first, middle or last token.
_OUTSIDE, _FIRST, _MIDDLE, _LAST = range(4)
# The token loss weighs three times the passage loss: a model that locates the sentence also detects that it exists.
_TOKEN_WEIGHT = 3.0


class _Example(NamedTuple):
    """A question, a passage, and the character range of the passage's sentence on the same topic, if any."""

    question: str
    passage: str
    related: tuple[int, int] | None


def pretrain(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, *, steps: int, seed: int) -> None:
    """Train an encoder in place to find related sentences, without labels of evidence.

    `seed` seeds the passages. The caller must seed torch.
    """
    draw = random.Random(seed)
    width = encoder.config.hidden_size
    passage_head, token_head = nn.Linear(width, 2), nn.Linear(width, 4)
    parts = (encoder, passage_head, token_head)
    parameters = list(itertools.chain.from_iterable(part.parameters() for part in parts))
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps + 1, pct_start=0.1)
    encoder.train()
    console = Console(stderr=True)
    for _ in track(range(steps), "pretraining the demo encoder", console=console, disable=not console.is_terminal):
        examples = [_example(draw) for _ in range(_BATCH)]
        inputs, related, tags = _tensors(examples, tokenizer)
        hidden = encoder(**inputs).last_hidden_state
        loss = cross_entropy(passage_head(hidden[:, 0]), related)
        loss = loss + _TOKEN_WEIGHT * cross_entropy(token_head(hidden).flatten(0, 1), tags.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def _example(draw: random.Random) -> _Example:
    """Draw a passage on some topics, and a question on one of them or on another topic."""
    topic, *others = draw.sample(sorted(SYMPTOMS), draw.randint(2, 3))
    answered = draw.random() < 0.5
    lines = [(sentence(draw.choice(EVERYDAY), draw), False) for _ in range(draw.randint(0, 2))]
    for named in [*others, topic] if answered else others:
        line = sentence(draw.choice(SYMPTOMS[named] + NOT_EVIDENCE[named]), draw)
        lines.insert(draw.randint(0, len(lines)), (line, named == topic))
    question = DSM5_CRITERIA[topic] if draw.random() < 0.5 else sentence(draw.choice(SYMPTOMS[topic]), draw)
    starts = [0, *itertools.accumulate(len(line) + 1 for line, _ in lines)]
    spans = [(start, start + len(line)) for start, (line, about) in zip(starts, lines, strict=False) if about]
    return _Example(question, " ".join(line for line, _ in lines), spans[0] if spans else None)


def _tensors(examples: list[_Example], tokenizer: PreTrainedTokenizerFast) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return the encoder's inputs, whether passages are related [batch], and the tags of tokens [batch, tokens]."""
    questions, passages = [one.question for one in examples], [one.passage for one in examples]
    encoded = tokenizer(questions, passages, padding=True, return_offsets_mapping=True, return_tensors="pt")
    offsets = encoded.pop("offset_mapping").tolist()
    tags = [
        [
            _tag(offset, one.related) if part == 1 else -100
            for offset, part in zip(row, encoded.sequence_ids(i), strict=True)
        ]
        for i, (one, row) in enumerate(zip(examples, offsets, strict=True))
    ]
    return dict(encoded), torch.tensor([int(one.related is not None) for one in examples]), torch.tensor(tags)


def _tag(offset: list[int], related: tuple[int, int] | None) -> int:
    if related is None or not related[0] <= offset[0] < related[1]:
        return _OUTSIDE
    if offset[0] == related[0]:
        return _FIRST
    return _LAST if offset[1] == related[1] else _MIDDLE


def write_encoder(folder: Path, seed: int, *, steps: int = _STEPS) -> None:
    """Write a small BERT and its tokenizer, as `AutoModel` and `AutoTokenizer` read them.

    Pretraining uses no annotations, and other posts than the demo corpus.
    """
    texts = DemoCorpus(600, seed + 1).texts()
    sentences = [line for text in texts for line in re.split(r"(?<=\.) ", text)]
    tokenizer = _tokenizer([*texts, *DSM5_CRITERIA.values()])
    # Forked, so that the caller's random state does not change.
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
    # `save_pretrained` of transformers would show a progress bar.
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a WordPiece tokenizer whose vocabulary is the words of some texts. It splits other words into letters.

    It is not trained: training breaks ties at random, so the same seed would not give the same files.
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
    """Return unit vectors [vocabulary, features of a topic] that are similar for words of the same sentences.

    They are the factorised PPMI of word pairs (Levy and Goldberg, Neural Word Embedding as Implicit Matrix
    Factorization, NeurIPS 2014).
    """
    together = np.zeros((len(tokenizer), len(tokenizer)))
    for ids in tokenizer(list(sentences), add_special_tokens=False)["input_ids"]:
        words = sorted(set(ids))
        together[np.ix_(words, words)] += 1
    alone = np.maximum(np.diag(together), 1.0)
    np.fill_diagonal(together, 0)
    ratio = together * len(sentences) / np.outer(alone, alone)
    ppmi = np.where(together < 2, 0.0, np.log(np.maximum(ratio, 1.0)))
    # The matrix is symmetric, so its eigenvectors are its singular vectors. torch respects the caller's thread limit.
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
    """Initialise attention so that half of the heads attend to similar words, and the others to neighbours.

    Keys are equal to queries, as they nearly are in trained language models (Trockman and Kolter, Mimetic
    Initialization of Self-Attention Layers, ICML 2023). With this start, seconds of training are enough.
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
