import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_hpo.refit.soup import Soup, State, Step, greedy_soup, running_statistics
from lightning_hpo.storage.objective import Mode, Objective


@dataclass(frozen=True)
class Evaluated:
    value: float
    state: State


def soup(weights: dict[int, float], best: float = 0.0, mode: Mode = "max") -> Soup[Evaluated]:
    """Return the soup of one weight for each seed, whose score is the distance to the best weight."""

    def evaluate(state: State) -> Evaluated:
        distance = abs(float(state["w"]) - best)
        return Evaluated(-distance if mode == "max" else distance, state)

    return greedy_soup(
        list(weights), lambda seed: {"w": torch.tensor(weights[seed])}, evaluate, Objective("val_metric", mode)
    )


@pytest.mark.parametrize("mode", ["max", "min"])
def test_seeds_are_tried_in_their_order_and_a_worse_mean_is_left_out(mode: Mode) -> None:
    found = soup({20: 1.0, 18: 9.0, 19: -1.0, 21: 3.0}, mode=mode)
    sign = -1 if mode == "max" else 1
    assert [(step.seed, step.score * sign, step.added) for step in found.steps] == [
        (20, 1.0, True),
        (18, 5.0, False),
        (19, 0.0, True),  # the mean of 20 and 19 only
        (21, 1.0, False),
    ]
    assert found.seeds == [20, 19]
    assert (found.best.value, float(found.best.state["w"])) == (0.0, 0.0)


def test_mean_with_the_same_score_is_kept() -> None:
    # The mean of 1 and -3 is as far from 0 as the first weight.
    assert soup({18: 1.0, 19: -3.0}).seeds == [18, 19]


def test_mean_without_a_finite_score_is_left_out() -> None:
    found = soup({18: 1.0, 19: math.nan, 20: -1.0})
    assert found.seeds == [18, 20]
    assert found.best.value == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_mean_of_equal_weights_is_these_weights(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    state = {"w": torch.randn(1000).to(dtype), "ids": torch.arange(3), "extra": "text"}
    before = torch.as_tensor(state["w"]).clone()

    def evaluate(weights: State) -> Evaluated:
        return Evaluated(0.5, weights)

    found = greedy_soup(range(7), lambda seed: state, evaluate, Objective("val_metric", "max"))
    assert found.steps == [Step(seed, 0.5, True) for seed in range(7)]
    assert found.best.state["w"].dtype == dtype
    assert torch.equal(found.best.state["w"], before)
    assert torch.equal(torch.as_tensor(state["w"]), before)
    assert found.best.state["extra"] == "text"


def test_what_is_no_floating_point_tensor_is_that_of_the_first_seed() -> None:
    states: Sequence[State] = [{"w": torch.tensor(float(n)), "steps": torch.tensor(n)} for n in range(3)]

    def evaluate(weights: State) -> Evaluated:
        return Evaluated(0.5, weights)

    found = greedy_soup([2, 0], lambda seed: states[seed], evaluate, Objective("val_metric", "max"))
    assert (float(found.best.state["w"]), int(found.best.state["steps"])) == (1.0, 2)


def test_layers_that_keep_statistics_are_found() -> None:
    assert running_statistics(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2))) == "2"
    assert running_statistics(nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True))) == "0"
    assert running_statistics(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2))) is None
