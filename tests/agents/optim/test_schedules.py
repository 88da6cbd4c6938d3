from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

from lightning_hpo.agents.optim.schedules import Schedule, ScheduleName, make_schedule

STEPS = 20

THEIRS: dict[str, Callable[..., Any]] = {
    "linear": transformers.get_linear_schedule_with_warmup,
    "cosine": transformers.get_cosine_schedule_with_warmup,
    "cosine_with_restarts": partial(transformers.get_cosine_with_hard_restarts_schedule_with_warmup, num_cycles=3),
    "polynomial": partial(transformers.get_polynomial_decay_schedule_with_warmup, lr_end=0.0, power=1.5),
}


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def _rates(scheduler: Any) -> list[float]:
    rates = []
    for _ in range(STEPS):
        rates.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def _ours(**settings: Any) -> list[float]:
    return _rates(make_schedule(_optimizer(), Schedule(**settings), lambda: STEPS))


@pytest.mark.parametrize("name", list(THEIRS))
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_schedules_match_transformers(name: str, warmup: float) -> None:
    theirs = _rates(THEIRS[name](_optimizer(), int(warmup * STEPS), STEPS))
    assert _ours(name=name, warmup=warmup, cycles=3, power=1.5) == pytest.approx(theirs)


def test_one_cycle_matches_torch() -> None:
    # torch reaches the minimum at the last step. This schedule, like the others, reaches it one step later.
    theirs = OneCycleLR(_optimizer(), 1.0, STEPS + 1, pct_start=6 / 21, cycle_momentum=False)
    assert _ours(name="one_cycle", warmup=0.25) == pytest.approx(_rates(theirs))


def test_constant_does_not_decay_after_the_warm_up() -> None:
    assert _ours(name="constant", warmup=0.2) == [0.0, 0.25, 0.5, 0.75] + [1.0] * 16


def test_number_of_steps_is_read_after_the_first_step() -> None:
    def too_early() -> int:
        raise AssertionError("the loader does not exist yet")

    assert make_schedule(_optimizer(), Schedule(), too_early).get_last_lr() == [0.0]


@given(
    name=st.sampled_from(["linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "constant"]),
    warmup=st.floats(0, 0.5),
    steps=st.integers(1, 300),
    cycles=st.integers(1, 4),
    power=st.floats(0.5, 2),
)
def test_factors_are_between_0_and_1(name: ScheduleName, warmup: float, steps: int, cycles: int, power: float) -> None:
    schedule = Schedule(name, warmup, cycles, power)
    factors = [schedule.factor(step, steps) for step in range(steps + 5)]
    assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in factors)
    assert factors[0] == pytest.approx(schedule.first())
    assert factors[-1] == (1.0 if name == "constant" else pytest.approx(0.0, abs=1e-5))
