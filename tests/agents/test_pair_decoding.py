import pytest
import torch

from lightning_hpo.agents.pair_decoding import MetDecision, met_rows, pair_log_odds, window_logits
from lightning_hpo.exceptions import NotFiniteError


def test_log_odds_of_a_pair_are_the_maximum_over_its_windows() -> None:
    logits = torch.tensor([[0.0, -3.0], [1.0, 3.0], [0.0, -1.0]])
    assert pair_log_odds(logits, torch.tensor([0, 0, 1]), 2).tolist() == [2.0, -1.0]


def test_a_criterion_is_met_from_its_threshold_on() -> None:
    log_odds = torch.tensor([0.0, -1.0, -1.0])
    rows = met_rows(log_odds, ["A", "A", "B"], MetDecision(by_criterion={"B": 0.25}))
    assert [row["met"] for row in rows] == [True, False, True]
    assert [row["threshold"] for row in rows] == [0.5, 0.5, 0.25]
    assert rows[0]["probability"] == 0.5
    assert rows[1]["probability"] == pytest.approx(float(torch.tensor(-1.0).sigmoid()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_log_odds_that_are_not_finite_are_no_answer(value: float) -> None:
    with pytest.raises(NotFiniteError, match=r"^the logits are NaN or infinite"):
        met_rows(torch.tensor([0.0, value]), ["A", "B"], MetDecision())


def test_temperature_changes_probabilities_but_no_answer() -> None:
    log_odds = torch.linspace(-4, 4, 33)
    rows = [met_rows(log_odds, ["A"] * 33, MetDecision.of_log_odds(t, 1.125, {})) for t in (1.0, 3.0)]
    assert [row["met"] for row in rows[0]] == [row["met"] for row in rows[1]] == (log_odds >= 1.125).tolist()
    assert rows[1][32]["probability"] == pytest.approx(float((log_odds[32] / 3).sigmoid()))


@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_network_reads_a_limited_number_of_windows_at_a_time(at_once: int) -> None:
    sizes = []

    def network(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        return (ids * mask).half()

    ids, mask = torch.arange(28).view(7, 4), torch.ones(7, 4, dtype=torch.long)
    logits = window_logits(network, [ids, mask], at_once)
    assert logits.tolist() == ids.float().tolist()
    assert logits.dtype == torch.float32
    assert sum(sizes) == 7
    assert max(sizes) == min(at_once, 7)
