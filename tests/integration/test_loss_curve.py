"""Losses of one epoch of each agent, step by step, against a transformers model in a plain torch loop."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    PreTrainedModel,
    get_linear_schedule_with_warmup,
)

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.agents.network.heads import CriteriaHead, EvidenceHead
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.agents.text_agent import TextAgent

Batch = dict[str, Any]

LR, DECAY, CLIP = 3e-3, 0.01, 1.0
PLAIN: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "use_safetensors": True}
SETTINGS: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0, "optim": Optim(lr=LR, weight_decay=DECAY)}


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.values.append(outputs["loss"].item())


def _padded(batch: Batch, by: int) -> Batch:
    """Shorten the last windows of a batch by some tokens."""
    shorter = torch.arange(len(batch["input_ids"])) >= 12
    mask = batch["attention_mask"].clone()
    mask[shorter, -by:] = 0
    ends = batch["end_positions"] * shorter
    kept = ends < mask.shape[1] - by
    return {**batch, "attention_mask": torch.where(kept[:, None], mask, batch["attention_mask"])}


@pytest.fixture
def batches(training_batches: list[Batch]) -> list[Batch]:
    return [_padded(batch, 1 + place % 5) for place, batch in enumerate(training_batches)]


def _plain_epoch(model: PreTrainedModel, batches: list[Batch], loss_of: Callable[[Any, Batch], Tensor]) -> list[float]:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    schedule = get_linear_schedule_with_warmup(optimizer, len(batches) // 10, len(batches))  # type: ignore[no-untyped-call]
    losses = []
    for batch in batches:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        loss = loss_of(model(**inputs), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _epoch(agent: TextAgent, loader: Any, trainer: Callable[..., Trainer]) -> list[float]:
    losses = Losses()
    options = {"max_epochs": 1, "gradient_clip_val": CLIP, "limit_val_batches": 0}
    trainer(**options, callbacks=[losses]).fit(agent, loader, loader)
    return losses.values


def _same_head(agent: TextAgent, head: Mapping[str, nn.Module]) -> None:
    for name, module in head.items():
        agent.network.get_submodule(name).load_state_dict(module.state_dict())


def test_criteria_agent_matches_transformers(
    encoder_folder: str, batches: list[Batch], loader: Callable[..., Any], trainer: Callable[..., Trainer]
) -> None:
    torch.manual_seed(2)
    with quiet_transformers():
        plain = BertForSequenceClassification.from_pretrained(encoder_folder, num_labels=2, **PLAIN).train()
    # BERT's pooler is equal to a hidden layer of the head with the width of the encoder and tanh.
    head = CriteriaHead(layers=1, hidden=32, activation="tanh", dropout=0.0, pooling="cls")
    agent = CriteriaAgent(encoder_folder, head=head, schedule=Schedule(warmup=0.1), **SETTINGS)
    _same_head(agent, {"head.layers.1": plain.bert.pooler.dense, "head.layers.4": plain.classifier})
    ours = _epoch(agent, loader(batches), trainer)
    theirs = _plain_epoch(plain, batches, lambda out, batch: functional.cross_entropy(out.logits, batch["labels"]))
    assert len(ours) == len(batches)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert min(ours) < 0.9 * ours[0]


def _span_loss(out: Any, batch: Batch) -> Tensor:
    # transformers allows padding as an answer.
    away = batch["attention_mask"] == 0
    start, end = out.start_logits.masked_fill(away, -1e9), out.end_logits.masked_fill(away, -1e9)
    start_loss = functional.cross_entropy(start, batch["start_positions"])
    return (start_loss + functional.cross_entropy(end, batch["end_positions"])) / 2


def test_evidence_agent_matches_transformers(
    encoder_folder: str, batches: list[Batch], loader: Callable[..., Any], trainer: Callable[..., Trainer]
) -> None:
    torch.manual_seed(2)
    with quiet_transformers():
        plain = BertForQuestionAnswering.from_pretrained(encoder_folder, **PLAIN).train()
    head = EvidenceHead(layers=0, dropout=0.0)
    agent = EvidenceAgent(encoder_folder, head=head, schedule=Schedule(warmup=0.1), **SETTINGS)
    _same_head(agent, {"head.layers.1": plain.qa_outputs})
    ours = _epoch(agent, loader(batches), trainer)
    theirs = _plain_epoch(plain, batches, _span_loss)
    assert len(ours) == len(batches)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert min(ours) < 0.9 * ours[0]
