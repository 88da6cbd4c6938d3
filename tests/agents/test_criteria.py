from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lightning_hpo.agents.baselines import BaselineData
from lightning_hpo.agents.criteria import CriteriaAgent
from lightning_hpo.agents.network.heads import CriteriaHead
from lightning_hpo.agents.pair_decoding import MetDecision
from lightning_hpo.agents.pair_scores import PairScores
from lightning_hpo.exceptions import InputError
from tests.tiny import pair_table


class _Fixed(nn.Module):
    """Network that returns fixed logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.given = logits

    def forward(self, *_: Tensor) -> Tensor:
        return self.given


def _batch() -> dict[str, Any]:
    """Three pairs in five windows. The second window of the first pair is met."""
    return {
        "input_ids": torch.zeros(5, 4, dtype=torch.long),
        "attention_mask": torch.ones(5, 4, dtype=torch.long),
        "labels": torch.tensor([0, 1, 0, -100, 0]),
        "pair_index": torch.tensor([0, 0, 1, 1, 2]),
        "post_ids": ["a", "b", "b"],
        "criteria": ["FATIGUE", "FATIGUE", "ANHEDONIA"],
        "met": torch.tensor([1, 0, 1]),
    }


@pytest.fixture
def agent(encoder_folder: str) -> CriteriaAgent:
    agent = CriteriaAgent(encoder_folder)
    odds = torch.tensor([-3.0, 2.0, -1.0, -0.5, -2.0])
    agent.network = _Fixed(torch.stack((torch.zeros(5), odds), dim=-1))
    return agent


def test_probability_of_a_pair_is_that_of_its_best_window(agent: CriteriaAgent) -> None:
    answers = agent.predict_step(_batch())
    odds = torch.tensor([2.0, -0.5, -2.0])
    assert [answer["probability"] for answer in answers] == pytest.approx(odds.sigmoid().tolist())
    assert [(answer["post_id"], answer["criterion"], answer["met"]) for answer in answers] == [
        ("a", "FATIGUE", True),
        ("b", "FATIGUE", False),
        ("b", "ANHEDONIA", False),
    ]


def test_scores_are_over_pairs_and_the_loss_over_windows(agent: CriteriaAgent) -> None:
    agent.validation_step(_batch(), 0)
    scores = agent.val_scores.compute()
    assert float(scores["metric"]) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert float(scores["precision"]) == 1.0
    assert float(scores["recall"]) == 0.5
    assert float(scores["positive"]) == pytest.approx(1 / 3)
    odds = torch.tensor([-3.0, -2.0, -1.0, -2.0])  # log odds of the wrong class; the fourth window is ignored
    assert float(scores["loss"]) == pytest.approx(float(nn.functional.softplus(odds).mean()))


def test_one_pass_gives_each_window_the_logits_of_each_criterion(encoder_folder: str) -> None:
    agent = CriteriaAgent(encoder_folder, form="one_pass", head=CriteriaHead(pooling="mean")).eval()
    generator = torch.Generator().manual_seed(0)
    ids, criteria = (torch.randint(8, 60, shape, generator=generator) for shape in ((5, 12), (3, 6)))
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "criterion_ids": criteria,
        "criterion_mask": torch.ones_like(criteria),
        "row_windows": torch.tensor([4, 0, 0]),
        "row_criteria": torch.tensor([1, 2, 1]),
    }
    whole = agent.network(ids, batch["attention_mask"], criteria, batch["criterion_mask"])
    assert whole.shape == (5, 3, 2)
    assert len(whole.flatten().unique()) == whole.numel()
    for at_once in (1, 2, 100):
        torch.testing.assert_close(agent.logits({**batch, "windows_at_once": at_once}), whole[[4, 0, 0], [1, 2, 1]])


@pytest.mark.parametrize(("share", "constant"), [(0.0, True), (1.0, True), (0.5, False)])
def test_constant_means_one_class_only(agent: CriteriaAgent, share: float, constant: bool) -> None:
    assert bool(agent.is_constant({"positive": torch.tensor(share)})) is constant


def test_constant_baselines_are_scored_with_the_metric_of_the_agent(agent: CriteriaAgent) -> None:
    pairs = pair_table([("a", "A", True), ("b", "A", False), ("c", "A", False), ("d", "A", False)])
    posts = dict.fromkeys("abcd", "some words")
    found = agent.pair_baselines(BaselineData(pairs, pairs, posts, {"A": "some"}))
    scores = {name: each.score for name, each in found.items()}
    assert scores["always met"] == pytest.approx(0.4 / 2)
    assert scores["never met"] == pytest.approx((6 / 7) / 2)
    assert set(scores) == {"always met", "never met", "TF-IDF + logistic regression"}


@pytest.mark.parametrize("policy", ["fitted", "per_criterion"])
def test_fitted_decision_is_in_checkpoints_and_no_other_one_is(encoder_folder: str, policy: Any) -> None:
    agent, other = (CriteriaAgent(encoder_folder, threshold=policy) for _ in range(2))
    agent.decision = MetDecision(2.0, 0.25, {"FATIGUE": 0.4})
    states = {key: value.detach().clone() for key, value in agent.to(torch.bfloat16).state_dict().items()}
    other.load_state_dict(states)
    assert other.decision == agent.decision
    fixed = CriteriaAgent(encoder_folder)
    fixed.decision = agent.decision
    assert fixed.decision == MetDecision()
    assert len(fixed.state_dict()) == len(states) - 1


def test_unknown_threshold_policy_is_an_error(encoder_folder: str) -> None:
    with pytest.raises(InputError, match=r"--model.threshold: got 'best'; it must be one of fixed, fitted"):
        CriteriaAgent(encoder_folder, threshold="best")
    assert CriteriaAgent.flag_problems({"threshold": "best"})


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")
def test_threshold_is_fitted_during_training_and_used_on_the_test_split(
    encoder_folder: str, eval_batches: list[dict[str, Any]], loader: Any, trainer: Any
) -> None:
    agent = CriteriaAgent(encoder_folder, threshold="fitted", optim={"lr": 1e-9})
    trainer(max_epochs=1).fit(agent, loader(eval_batches), loader(eval_batches))
    decision = agent.decision
    assert decision != MetDecision()
    scores = cast(PairScores, agent.val_scores["pairs"])
    assert decision == scores.fit()
    trainer().test(agent, loader(eval_batches), verbose=False)
    assert cast(PairScores, agent.test_scores["pairs"]).decision == decision
    trainer().validate(agent, loader(eval_batches[:1]), verbose=False)
    assert agent.decision == decision
