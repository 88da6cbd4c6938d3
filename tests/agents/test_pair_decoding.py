import pytest
import torch

from lightning_hpo.agents.pair_decoding import met_rows, pair_probabilities


def test_probability_of_a_pair_is_the_maximum_over_its_windows() -> None:
    odds = torch.tensor([-3.0, 2.0, -1.0])
    probabilities = pair_probabilities(torch.stack((torch.zeros(3), odds), dim=-1), torch.tensor([0, 0, 1]), 2)
    assert probabilities.tolist() == pytest.approx(torch.tensor([2.0, -1.0]).sigmoid().tolist())


def test_a_criterion_is_met_from_the_threshold_on() -> None:
    probabilities = torch.tensor([0.5, 0.25])
    assert met_rows(probabilities) == [{"met": True, "probability": 0.5}, {"met": False, "probability": 0.25}]
    assert [row["met"] for row in met_rows(probabilities, 0.25)] == [True, True]
