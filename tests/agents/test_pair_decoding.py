import pytest
import torch

from lightning_hpo.agents.pair_decoding import met_rows, pair_probabilities, window_logits


def test_probability_of_a_pair_is_the_maximum_over_its_windows() -> None:
    odds = torch.tensor([-3.0, 2.0, -1.0])
    probabilities = pair_probabilities(torch.stack((torch.zeros(3), odds), dim=-1), torch.tensor([0, 0, 1]), 2)
    assert probabilities.tolist() == pytest.approx(torch.tensor([2.0, -1.0]).sigmoid().tolist())


def test_a_criterion_is_met_from_the_threshold_on() -> None:
    probabilities = torch.tensor([0.5, 0.25])
    assert met_rows(probabilities) == [{"met": True, "probability": 0.5}, {"met": False, "probability": 0.25}]
    assert [row["met"] for row in met_rows(probabilities, 0.25)] == [True, True]


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
