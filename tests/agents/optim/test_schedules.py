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
def test_schedules_are_those_of_transformers(name: str, warmup: float) -> None:
    theirs = _rates(THEIRS[name](_optimizer(), int(warmup * STEPS), STEPS))
    assert _ours(name=name, warmup=warmup, cycles=3, power=1.5) == pytest.approx(theirs)


def test_one_cycle_is_torchs() -> None:
    # Theirs is at its lowest with its last step, ours with the step after the last, as the other schedules are.
    theirs = OneCycleLR(_optimizer(), 1.0, STEPS + 1, pct_start=6 / 21, cycle_momentum=False)
    assert _ours(name="one_cycle", warmup=0.25) == pytest.approx(_rates(theirs))


def test_constant_stays_where_it_is_after_the_warm_up() -> None:
    assert _ours(name="constant", warmup=0.2) == [0.0, 0.25, 0.5, 0.75] + [1.0] * 16


def test_the_number_of_steps_is_asked_for_only_after_the_first() -> None:
    def not_yet() -> int:
        raise AssertionError("the loader is not there yet")

    assert make_schedule(_optimizer(), Schedule(), not_yet).get_last_lr() == [0.0]


@given(
    name=st.sampled_from(["linear", "cosine", "cosine_with_restarts", "polynomial", "one_cycle", "constant"]),
    warmup=st.floats(0, 0.5),
    steps=st.integers(1, 300),
    cycles=st.integers(1, 4),
    power=st.floats(0.5, 2),
)
def test_a_rate_is_never_below_nothing_nor_above_the_highest(
    name: ScheduleName, warmup: float, steps: int, cycles: int, power: float
) -> None:
    schedule = Schedule(name, warmup, cycles, power)
    factors = [schedule.factor(step, steps) for step in range(steps + 5)]
    assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in factors)
    assert factors[0] == pytest.approx(schedule.first())
    assert factors[-1] == (1.0 if name == "constant" else pytest.approx(0.0, abs=1e-5))
