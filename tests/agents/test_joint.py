from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent, JointAgent
from lightning_hpo.agents.baselines import BaselineData
from lightning_hpo.agents.losses import row_loss, span_loss
from lightning_hpo.agents.pair_decoding import MetDecision
from lightning_hpo.exceptions import NotFiniteError
from tests.tiny import pair_table

POSTS, CRITERIA, TOKENS = 6, ("FATIGUE", "SLEEP_ISSUES"), 7


class _Fixed(nn.Module):
    """Network that returns fixed logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.given = logits

    def forward(self, *_: Tensor) -> Tensor:
        return self.given


def _batch() -> dict[str, Any]:
    """Six posts of one window with two criteria. Every third pair is met; the evidence of the last one was lost."""
    pairs = POSTS * len(CRITERIA)
    places = torch.arange(pairs)
    met = (places % 3 == 0).long()
    known = [pair != 9 for pair in range(pairs)]
    offsets = torch.full((pairs, TOKENS, 2), -1)
    offsets[:, 1:6] = torch.tensor([[4 * token, 4 * token + 3] for token in range(5)])
    has_evidence = met * torch.tensor(known)
    ids = torch.zeros(POSTS, TOKENS, dtype=torch.long)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "criterion_ids": ids[:2, :3],
        "criterion_mask": torch.ones_like(ids[:2, :3]),
        "row_windows": places // len(CRITERIA),
        "row_criteria": places % len(CRITERIA),
        "labels": met,
        "start_positions": (2 * has_evidence).masked_fill(~torch.tensor(known), -100).unsqueeze(1),
        "end_positions": (3 * has_evidence).masked_fill(~torch.tensor(known), -100).unsqueeze(1),
        "pair_index": places,
        "post_ids": [f"p{pair // len(CRITERIA)}" for pair in range(pairs)],
        "criteria": list(CRITERIA) * POSTS,
        "met": met,
        "spans": [[(4, 11)] if has else [] for has in has_evidence.tolist()],
        "evidence_known": known,
        "offsets": offsets,
        "texts": ["one two six ten by" for _ in range(pairs)],
    }


def _logits(seed: int = 0) -> Tensor:
    return 3 * torch.randn(POSTS, len(CRITERIA), 1 + TOKENS, 2, generator=torch.Generator().manual_seed(seed))


def _rows(logits: Tensor) -> Tensor:
    return logits.flatten(0, 1)


def _agent(encoder: str, logits: Tensor, **flags: Any) -> JointAgent:
    agent = JointAgent(encoder, **flags)
    agent.network = _Fixed(logits)
    return agent


def _evaluated(agent: Any, batch: Mapping[str, Any]) -> dict[str, float]:
    agent.validation_step(dict(batch), 0)
    return {name: float(value) for name, value in agent.computed(agent.val_scores).items()}


def test_each_half_has_the_score_of_its_own_agent(encoder_folder: str) -> None:
    batch, logits = _batch(), _logits()
    found = _evaluated(_agent(encoder_folder, logits), batch)
    pairs = {name: value for name, value in batch.items() if not name.startswith(("criterion_", "row_"))}
    pairs |= {name: batch[name][batch["row_windows"]] for name in ("input_ids", "attention_mask")}
    criteria, evidence = CriteriaAgent(encoder_folder), EvidenceAgent(encoder_folder)
    criteria.network, evidence.network = _Fixed(_rows(logits)[:, 0]), _Fixed(_rows(logits)[:, 1:])
    met = _evaluated(criteria, pairs)
    kept = [place for place, known in enumerate(batch["evidence_known"]) if known]
    for name, column in pairs.items():
        pairs[name] = column[torch.tensor(kept)] if isinstance(column, Tensor) else [column[place] for place in kept]
    pairs["pair_index"] = torch.arange(len(kept))
    evidence.network = _Fixed(_rows(logits)[kept, 1:])
    spans = _evaluated(evidence, pairs)
    assert 0 < spans["metric"] < 1
    assert 0 < met["metric"] < 1
    for own, prefix in ((met, "criteria"), (spans, "evidence")):
        for name in own.keys() - {"loss"}:
            np.testing.assert_equal(found[f"{prefix}_{name}"], own[name])
    assert found["metric"] == pytest.approx((met["metric"] + spans["metric"]) / 2)


def test_metric_is_that_of_the_scores_by_post(encoder_folder: str) -> None:
    agent = _agent(encoder_folder, _logits())
    assert agent.post_scores("val") is None
    found = _evaluated(agent, _batch())
    scores = agent.post_scores("val")
    assert scores is not None
    assert scores.score == pytest.approx(found["metric"])
    assert len(scores.keys) == POSTS


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_loss_is_the_weighted_sum_of_both(encoder_folder: str, weight: float) -> None:
    batch, rows = _batch(), _rows(_logits())
    agent = _agent(encoder_folder, _logits(), evidence_weight=weight, loss={"name": "focal"})
    losses, counted = agent.window_losses(rows, batch)
    mask = batch["attention_mask"][batch["row_windows"]]
    met = row_loss(rows[:, 0], batch["labels"], agent.loss)
    spans, known = span_loss(rows[:, 1:], mask, batch["start_positions"], batch["end_positions"], agent.loss)
    torch.testing.assert_close(losses, (1 - weight) * met + weight * spans)
    assert counted.all()
    assert known.tolist() == batch["evidence_known"]
    assert float(spans[9]) == 0.0


def test_label_that_is_ignored_has_no_loss(encoder_folder: str) -> None:
    batch = _batch()
    for name in ("labels", "start_positions", "end_positions"):
        batch[name][4] = -100
    losses, counted = _agent(encoder_folder, _logits()).window_losses(_rows(_logits()), batch)
    assert float(losses[4]) == 0.0
    assert counted.tolist() == [place != 4 for place in range(12)]


def test_answers_are_those_of_both_agents(encoder_folder: str) -> None:
    agent = _agent(encoder_folder, _logits())
    agent.decision = MetDecision()
    batch = _batch()
    rows = agent.predict_step(batch)
    met, spans = _rows(_logits())[:, 0], _rows(_logits())[:, 1:]
    for row, decision, answer in zip(
        rows, agent.met_answers(met, batch), agent.span_answers(spans, batch), strict=True
    ):
        keys = {"post_id": row["post_id"], "criterion": row["criterion"]}
        assert row == {**keys, **decision, **answer}
    agent.network = _Fixed(_logits() * torch.nan)
    with pytest.raises(NotFiniteError):
        agent.predict_step(batch)


@pytest.mark.parametrize("place", [slice(0, 1), slice(1, None)])
def test_outputs_tell_a_change_of_either_half(encoder_folder: str, place: slice) -> None:
    changed = _logits()
    changed[2, 1, place, 1] *= 2
    one, same, other = (_agent(encoder_folder, logits) for logits in (_logits(), _logits(), changed))
    for agent in (one, same, other):
        agent.validation_step(_batch(), 0)
    outputs = one.pair_outputs()
    assert len(outputs.keys) == len(outputs.log_odds) == 12 + 11
    assert outputs.difference(same.pair_outputs(), is_16_bit=False) == ""
    assert "its log odds differ" in outputs.difference(other.pair_outputs(), is_16_bit=False)


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ({}, False),
        ({"criteria_positive": 0.0}, True),
        ({"criteria_positive": 1.0}, True),
        ({"evidence_positive": 0.0}, True),
        ({"evidence_whole": 1.0}, True),
    ],
)
def test_agent_is_constant_if_one_half_is(encoder_folder: str, values: dict[str, float], constant: bool) -> None:
    given = {"criteria_positive": 0.2, "evidence_positive": 0.3, "evidence_whole": 0.1, **values}
    agent = JointAgent(encoder_folder)
    assert bool(agent.is_constant({name: torch.tensor(value) for name, value in given.items()})) is constant


def test_what_both_halves_fit_is_in_checkpoints(encoder_folder: str) -> None:
    flags: dict[str, Any] = {"threshold": "fitted", "decoding": {"null_policy": "calibrated"}}
    agent, again = (JointAgent(encoder_folder, **flags) for _ in range(2))
    agent.decision = MetDecision(2.0, 0.3)
    agent.null_threshold.fill_(1.5)
    again.load_state_dict(agent.state_dict())
    assert again.decision == agent.decision
    assert again.decoding.null_threshold == 1.5


def test_baselines_answer_both(encoder_folder: str) -> None:
    rows: list[Any] = [("a", "S", True, (0, 4)), ("a", "T", False), ("b", "S", True), ("b", "T", False)]
    table = pair_table(rows)
    data = BaselineData(table, table, {"a": "text of one.", "b": "another text."}, {"S": "text", "T": "other"})
    found = JointAgent(encoder_folder).pair_baselines(data)
    assert list(found) == [
        "always met, whole post",
        "never met, no evidence",
        "TF-IDF + logistic regression, most similar sentence",
    ]
    # Of the spans, 2 of the 3 pairs whose evidence is known are right. F1 of "not met" is 2 / 3, that of "met" is 0.
    assert found["never met, no evidence"].score == pytest.approx((1 / 3 + 2 / 3) / 2)
