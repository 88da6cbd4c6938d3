from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_hpo.agents.evidence import EvidenceAgent


class _Fixed(nn.Module):
    """A network that gives the logits that it was given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.given = logits

    def forward(self, *_: Tensor) -> Tensor:
        return self.given


@dataclass(frozen=True)
class _Pair:
    post_id: str
    met: bool
    spans: tuple[tuple[int, int], ...] = ()


def _batch() -> dict[str, Any]:
    """Two pairs: one of two windows with evidence in the second, one of a window without."""
    offsets = torch.full((3, 5, 2), -1)
    offsets[0, 2:4] = torch.tensor([[0, 3], [4, 6]])
    offsets[1, 2:4] = torch.tensor([[7, 9], [10, 14]])
    offsets[2, 2:4] = torch.tensor([[0, 3], [4, 6]])
    return {
        "input_ids": torch.zeros(3, 5, dtype=torch.long),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
        "start_positions": torch.tensor([0, 2, 0]),
        "end_positions": torch.tensor([0, 3, 0]),
        "pair_index": torch.tensor([0, 0, 1]),
        "post_ids": ["a", "b"],
        "criteria": ["FATIGUE", "FATIGUE"],
        "offsets": offsets,
        "spans": [[(7, 14)], []],
    }


def _logits() -> Tensor:
    logits = torch.zeros(3, 5, 2)
    logits[1, 2, 0] = 3.0
    logits[1, 3, 1] = 4.0
    logits[2, 0] = 1.0
    logits[2, 4] = 50.0  # padding: never an answer, never part of the loss
    return logits


@pytest.fixture
def agent(encoder_folder: str) -> EvidenceAgent:
    agent = EvidenceAgent(encoder_folder)
    agent.network = _Fixed(_logits())
    return agent


def test_an_answer_is_where_the_evidence_is_or_null(agent: EvidenceAgent) -> None:
    first, second = agent.predict_step(_batch())
    assert first == {"post_id": "a", "criterion": "FATIGUE", "start": 7, "end": 14, "score": 7.0, "null": False}
    assert second["null"] is True
    assert second["score"] == -2.0


def test_the_scores_are_over_pairs(agent: EvidenceAgent) -> None:
    agent.validation_step(_batch(), 0)
    scores = {name: float(value) for name, value in agent.val_scores.compute().items()}
    assert scores["metric"] == scores["f1"] == scores["null_accuracy"] == 1.0
    assert scores["positive"] == 0.5


def test_the_loss_leaves_padding_out(agent: EvidenceAgent) -> None:
    batch = _batch()
    losses, counted = agent.window_losses(_logits(), batch)
    expected = nn.functional.cross_entropy(_logits()[2:, :4, 0], torch.tensor([0]))
    assert float(losses[2]) == pytest.approx(float(expected))
    assert counted.tolist() == [True, True, True]
    batch["start_positions"][1] = batch["end_positions"][1] = -100
    losses, counted = agent.window_losses(_logits(), batch)
    assert float(losses[1]) == 0.0
    assert counted.tolist() == [True, False, True]


def test_the_settings_of_decoding_act(encoder_folder: str) -> None:
    agent = EvidenceAgent(encoder_folder, decoding={"max_answer_tokens": 1, "null_threshold": 2.5})  # type: ignore[arg-type]
    agent.network = _Fixed(_logits())
    first, second = agent.predict_step(_batch())
    assert (first["start"], first["end"], first["score"]) == (10, 14, 4.0)
    assert second["null"] is False


@pytest.mark.parametrize(("share", "constant"), [(0.0, True), (1.0, False), (0.5, False)])
def test_constant_is_null_alone(agent: EvidenceAgent, share: float, constant: bool) -> None:
    assert bool(agent.is_constant(torch.tensor(share))) is constant


def test_constant_answers_are_scored_as_the_agent_is() -> None:
    pairs = [_Pair("a", True, ((0, 5),)), _Pair("b", False), _Pair("b", False), _Pair("b", False)]
    scores = EvidenceAgent.constant_answers(pairs, {"a": "x" * 15, "b": "x"})
    assert scores == pytest.approx({"no evidence": 0.75, "whole post": 0.5 / 4})
