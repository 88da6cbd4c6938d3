from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from lightning_hpo.agents.baselines import BaselineData
from lightning_hpo.agents.evidence import EvidenceAgent
from lightning_hpo.agents.joint import JointAgent
from lightning_hpo.agents.losses import row_loss
from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.agents.spans.scores import SpanScores
from lightning_hpo.exceptions import InputError, NotFiniteError
from tests.agents.network.test_encoder_checks import CAUSAL
from tests.tiny import pair_table


class _Fixed(nn.Module):
    """Network that returns fixed logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.given = logits

    def forward(self, *_: Tensor) -> Tensor:
        return self.given


def _batch() -> dict[str, Any]:
    """Two pairs: one has two windows with evidence in the second; the other has one window without evidence."""
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
    logits[2, 4] = 50.0  # padding: ignored by decoding and loss
    return logits


@pytest.fixture
def agent(encoder_folder: str) -> EvidenceAgent:
    agent = EvidenceAgent(encoder_folder)
    agent.network = _Fixed(_logits())
    return agent


def test_answer_is_the_evidence_or_null(agent: EvidenceAgent) -> None:
    first, second = agent.predict_step(_batch())
    assert first == {"post_id": "a", "criterion": "FATIGUE", "start": 7, "end": 14, "score": 7.0, "null": False}
    assert second["null"] is True
    assert second["score"] == -2.0


def test_scores_are_over_pairs(agent: EvidenceAgent) -> None:
    agent.validation_step(_batch(), 0)
    scores = {name: float(value) for name, value in agent.val_scores.compute().items()}
    for name in ("metric", "exact", "f1_answerable", "f1_null", "all_f1", "null_accuracy"):
        assert scores[name] == 1.0
    assert (scores["positive"], scores["whole"]) == (0.5, 0.5)


def test_loss_ignores_padding(agent: EvidenceAgent) -> None:
    batch = _batch()
    losses, counted = agent.window_losses(_logits(), batch)
    expected = nn.functional.cross_entropy(_logits()[2:, :4, 0], torch.tensor([0]))
    assert float(losses[2]) == pytest.approx(float(expected))
    assert counted.tolist() == [True, True, True]
    batch["start_positions"][1] = batch["end_positions"][1] = -100
    losses, counted = agent.window_losses(_logits(), batch)
    assert float(losses[1]) == 0.0
    assert counted.tolist() == [True, False, True]


def test_decoding_settings_are_applied(encoder_folder: str) -> None:
    agent = EvidenceAgent(encoder_folder, decoding={"max_answer_tokens": 1, "null_threshold": 2.5})
    agent.network = _Fixed(_logits())
    first, second = agent.predict_step(_batch())
    assert (first["start"], first["end"], first["score"]) == (10, 14, 4.0)
    assert second["null"] is False


@pytest.mark.parametrize(
    ("positive", "whole", "constant"), [(0.0, 0.0, True), (1.0, 0.9, False), (0.5, 0.5, False), (1.0, 1.0, True)]
)
def test_constant_means_always_null_or_always_the_whole_window(
    agent: EvidenceAgent, positive: float, whole: float, constant: bool
) -> None:
    values = {"positive": torch.tensor(positive), "whole": torch.tensor(whole)}
    assert bool(agent.is_constant(values)) is constant


@pytest.mark.parametrize("policy", ["none", "threshold", "ratio", "calibrated"])
@pytest.mark.parametrize(
    ("null", "first", "last", "constant"), [(9.0, 2, 3, True), (-9.0, 2, 3, True), (-9.0, 2, 2, False)]
)
def test_constant_model_is_detected_under_every_null_policy(
    encoder_folder: str, policy: str, null: float, first: int, last: int, constant: bool
) -> None:
    agent = EvidenceAgent(encoder_folder, decoding={"null_policy": policy})
    logits = torch.zeros(3, 5, 2)
    logits[:, 0] = null
    logits[:, first, 0] = logits[:, last, 1] = 1.0
    agent.network = _Fixed(logits)
    if policy == "calibrated":  # otherwise each pair is scored with the threshold that suits the other
        cast(SpanScores, agent.val_scores["pairs"]).threshold = 0.0
    agent.validation_step(_batch(), 0)
    assert bool(agent.is_constant(agent.val_scores.compute())) is constant


def _several(*rows: list[tuple[int, int]]) -> dict[str, Any]:
    """Return the batch with these pieces of evidence in its windows."""
    most = max(map(len, rows))
    table = torch.tensor([row + [(-100, -100)] * (most - len(row)) for row in rows])
    return {**_batch(), "start_positions": table[..., 0], "end_positions": table[..., 1]}


def test_finding_one_of_several_pieces_is_enough(agent: EvidenceAgent) -> None:
    logits = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    p_start, p_end = logits[1].softmax(dim=0).unbind(dim=-1)
    both = _several([(0, 0)], [(2, 2), (3, 4)], [(0, 0)])
    losses, _ = agent.window_losses(logits, both)
    expected = -torch.log(p_start[2] * p_end[2] + p_start[3] * p_end[4]) / 2
    assert float(losses[1]) == pytest.approx(float(expected))
    swapped, _ = agent.window_losses(logits, _several([(0, 0)], [(3, 4), (2, 2)], [(0, 0)]))
    torch.testing.assert_close(swapped, losses)


def test_start_and_end_of_different_pieces_have_a_high_loss(agent: EvidenceAgent) -> None:
    consistent, crossed = torch.zeros(2, 3, 5, 2).unbind()
    consistent[1, 2] = crossed[1, 2, 0] = crossed[1, 4, 1] = 20.0
    batch = _several([(0, 0)], [(2, 2), (4, 4)], [(0, 0)])
    assert float(agent.window_losses(consistent, batch)[0][1]) < 0.01
    assert float(agent.window_losses(crossed, batch)[0][1]) > 9


@pytest.mark.parametrize("loss", [{}, {"label_smoothing": 0.1}])
def test_loss_of_one_piece_is_the_mean_of_start_and_end(encoder_folder: str, loss: dict[str, Any]) -> None:
    agent = EvidenceAgent(encoder_folder, loss=loss)
    logits = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    one = agent.window_losses(logits, _batch())[0]
    padded = agent.window_losses(logits, _several([(0, 0)], [(2, 3), (3, 3)], [(0, 0)]))[0]
    sides = [
        row_loss(logits[..., side], torch.tensor([0, (2, 3)[side], 0]), agent.loss, _batch()["attention_mask"])
        for side in (0, 1)
    ]
    torch.testing.assert_close(one, (sides[0] + sides[1]) / 2)
    assert torch.equal(padded[[0, 2]], one[[0, 2]])
    assert float(padded[1]) < float(one[1])


_FOCAL: list[dict[str, Any]] = [
    {"name": "focal", "gamma": 2.0},
    {"name": "focal", "gamma": 5.0},
    {"name": "focal", "gamma": 2.0, "alpha": 0.25},
]


@pytest.mark.parametrize("loss", [{}, *_FOCAL])
def test_loss_of_several_pieces_is_that_of_a_likelihood(encoder_folder: str, loss: dict[str, Any]) -> None:
    """It is 0 for certain evidence and positive otherwise, and does not ask to spread the certainty over the pieces."""
    agent = EvidenceAgent(encoder_folder, loss=loss)
    pieces = [(1, 1), (2, 2), (3, 3), (4, 4)]
    batch = _several([(0, 0)], pieces, [(0, 0)])

    def found(chosen: list[int]) -> float:
        logits = torch.zeros(3, 5, 2)
        logits[1, chosen] = 40.0
        return float(agent.window_losses(logits, batch)[0][1])

    assert found([1]) == pytest.approx(0.0, abs=1e-6)
    # Half on two pieces: the start of one goes with the end of the other in half of the draws.
    assert found([1]) < found([1, 2]) < found([1, 2, 3, 4])
    assert found([]) > 0


@pytest.mark.parametrize("loss", [{}, *_FOCAL])
def test_training_on_several_pieces_ends_at_one_of_them(encoder_folder: str, loss: dict[str, Any]) -> None:
    agent = EvidenceAgent(encoder_folder, loss=loss)
    batch = _several([(0, 0)], [(2, 2), (3, 3)], [(0, 0)])
    logits = (0.1 * torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        agent.window_losses(logits, batch)[0][1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    p_start, p_end = logits.detach()[1].softmax(dim=0).unbind(dim=-1)
    assert float((p_start * p_end)[[2, 3]].max()) > 0.7


def test_ignored_windows_have_no_gradient(agent: EvidenceAgent) -> None:
    logits = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses, counted = agent.window_losses(logits, _several([(-100, -100)], [(2, 2), (3, 4)], [(0, 0)]))
    (slopes,) = torch.autograd.grad(losses.sum(), logits)
    assert counted.tolist() == [False, True, True]
    assert slopes[0].abs().sum() == 0
    assert slopes[1:].isfinite().all()
    assert slopes[1].abs().sum() > 0


def test_several_answers_are_listed(encoder_folder: str) -> None:
    settings = {"top_k": 2, "overlap": 0.0, "max_answer_tokens": 1}
    agent = EvidenceAgent(encoder_folder, decoding=settings)
    agent.network = _Fixed(_logits())
    first, second = agent.predict_step(_batch())
    assert first["answers"] == [{"start": 10, "end": 14, "score": 4.0}, {"start": 7, "end": 9, "score": 3.0}]
    assert second["answers"] == []


def test_nan_logits_raise_an_error(agent: EvidenceAgent) -> None:
    agent.network = _Fixed(torch.full((3, 5, 2), float("nan")))
    with pytest.raises(NotFiniteError, match="no answer"):
        agent.predict_step(_batch())


def test_constant_baselines_are_scored_with_the_metric_of_the_agent(agent: EvidenceAgent) -> None:
    pairs = pair_table([("a", "A", True, (0, 5)), ("b", "A", False), ("c", "A", False), ("d", "A", False)])
    posts = {"a": "x" * 15, "b": "x", "c": "x", "d": "x"}
    scores = {
        name: each.score for name, each in agent.pair_baselines(BaselineData(pairs, pairs, posts, {"A": "y"})).items()
    }
    assert scores["no evidence"] == pytest.approx(0.75)
    assert scores["whole post"] == pytest.approx(0.5 / 4)
    assert set(scores) == {"no evidence", "whole post", "most similar sentence"}


def test_answers_snap_to_sentences_in_validation_and_prediction(encoder_folder: str) -> None:
    agent = EvidenceAgent(encoder_folder, decoding={"snap": "sentence"})
    agent.network = _Fixed(_logits())
    batch = {**_batch(), "texts": ["I am. so tired all day.", "Fine today."], "spans": [[(6, 23)], []]}
    first, second = agent.predict_step(batch)
    assert (first["start"], first["end"], first["null"]) == (6, 23, False)
    assert second["null"] is True
    agent.validation_step(batch, 0)
    scores = {name: float(value) for name, value in agent.val_scores.compute().items()}
    assert (scores["metric"], scores["exact"], scores["f1_sentence"]) == (1.0, 1.0, 1.0)


def test_score_by_sentences_is_logged_without_snapping(agent: EvidenceAgent) -> None:
    batch = {**_batch(), "texts": ["I am. so tired all day.", "Fine today."], "spans": [[(6, 23)], []]}
    agent.validation_step(batch, 0)
    scores = {name: float(value) for name, value in agent.val_scores.compute().items()}
    assert scores["f1_sentence"] == 1.0
    assert scores["metric"] == pytest.approx((14 / 24 + 1) / 2)


def test_causal_model_is_refused(tmp_path: Path) -> None:
    with quiet_transformers():
        AutoModel.from_config(CAUSAL["llama"]()).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    for agent in (EvidenceAgent, JointAgent):
        with pytest.raises(InputError, match=r"^--model.name: got a llama model, but the first token"):
            agent(str(tmp_path))
