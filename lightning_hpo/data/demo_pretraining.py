"""Pretrains the demo's encoder: which sentences of a passage are about the same as another sentence?"""

import itertools
import random
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertModel, PreTrainedTokenizerFast

from lightning_hpo.data.demo_corpus import sentence
from lightning_hpo.data.demo_sentences import EVERYDAY, NOT_EVIDENCE, SYMPTOMS
from lightning_hpo.data.dsm5 import DSM5_CRITERIA

__all__ = ["pretrain"]

_BATCH = 32
_RATE = 3e-3
# A token is outside the related sentence, or its first, middle or last.
_OUTSIDE, _FIRST, _MIDDLE, _LAST = range(4)
# Tokens have three times the weight of the passage: where the sentence is decides whether it is there.
_TOKEN_WEIGHT = 3.0


@dataclass(frozen=True)
class _Example:
    """A question, a passage, and the characters of the passage's sentence on the same topic, if it has one."""

    question: str
    passage: str
    related: tuple[int, int] | None


def pretrain(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, *, steps: int, seed: int) -> None:
    """Train an encoder to find related sentences; what is evidence and what is not it never hears.

    Args:
        encoder: The encoder, changed in place.
        tokenizer: Its tokenizer.
        steps: Batches to train on.
        seed: Decides the passages; the caller seeds torch.
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
    for _ in track(range(steps), "preparing the encoder", console=console, disable=not console.is_terminal):
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
    """A passage on some topics, and a question on one of them or on another."""
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
    """Inputs of the encoder; whether each passage is related [batch]; the tag of each token [batch, tokens]."""
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
