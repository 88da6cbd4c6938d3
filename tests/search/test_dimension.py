from itertools import islice
from typing import Any

import optuna
import pytest

from lightning_hpo.search.dimension import Dimension, from_label, label


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        (Dimension("x", choices=("a", [1, 2])), ("a", [1, 2])),
        (Dimension("x", low=1, high=9), (1, 9)),
        (Dimension("x", low=1, high=9, step=2), (1, 3, 9)),
        (Dimension("x", low=0.5, high=1.0, step=0.75), (0.5, 1.0, 1.0)),
    ],
)
def test_extremes_are_all_choices_or_the_first_second_and_last_value(
    dimension: Dimension, values: tuple[Any, ...]
) -> None:
    assert dimension.extremes == values


@pytest.mark.parametrize("choice", [True, 3, 0.5, "a", None, ["a", "b"], {"a": [1]}])
def test_a_label_is_stored_by_optuna_and_converted_back(choice: Any) -> None:
    assert isinstance(label(choice), bool | int | float | str | None)
    assert from_label(label(choice)) == choice


def test_a_range_is_limited_by_another_value_on_a_step() -> None:
    dimension = Dimension("x", low=2, high=20, step=3, at_most={"y": 0.5})
    assert dimension.within({}) is dimension
    assert dimension.within({"y": 100}) is dimension
    assert dimension.within({"y": 22}).ends == (2, 11)
    assert dimension.within({"y": 20}).ends == (2, 8)


@pytest.mark.parametrize(
    ("dimension", "around", "ends"),
    [
        (Dimension("x", low=0.0, high=1.0), 0.5, (0.4, 0.6)),
        (Dimension("x", low=0.0, high=1.0), 2.0, (0.9, 1.0)),
        (Dimension("x", low=1e-4, high=1.0, log=True), 0.01, (0.01 / 10**0.4, 0.01 * 10**0.4)),
        (Dimension("x", low=0, high=10), 5, (4, 6)),
        (Dimension("x", low=0.0, high=2.0, step=0.5), 1.0, (0.5, 1.5)),
        (Dimension("x", low=0.0, high=1.0, at_most={"y": 0.5}), 0.5, (0.0, 0.6)),
        (Dimension("x", choices=("a", "b")), 0.5, ("a", "b")),
    ],
)
def test_a_range_is_narrowed_to_a_fifth_of_its_width(
    dimension: Dimension, around: float, ends: tuple[Any, ...]
) -> None:
    assert dimension.narrowed(around, 0.2).ends == (pytest.approx(ends) if dimension.high else ends)


def test_a_fixed_dimension_has_its_value_without_sampling() -> None:
    trial = optuna.create_study().ask()
    assert Dimension("x", low=0.0, high=1.0).fixed_at([1, 2]).suggest(trial) == [1, 2]
    assert trial.params == {}


@pytest.mark.parametrize(
    ("dimension", "first"),
    [
        (Dimension("x", low=0, high=10**18), [0, 1, 2]),
        (Dimension("x", low=1, high=10**18, step=4), [1, 5, 9]),
        (Dimension("x", low=0.0, high=1e12, step=0.5), [0.0, 0.5, 1.0]),
    ],
)
def test_values_of_a_long_range_are_not_held_in_memory(dimension: Dimension, first: list[Any]) -> None:
    assert list(islice(dimension.values or (), 3)) == first


def test_values_of_a_range_with_steps_end_with_the_last_step() -> None:
    assert list(Dimension("x", low=0.5, high=0.9, step=0.2).values or ()) == pytest.approx([0.5, 0.7, 0.9])
    assert list(Dimension("x", low=1, high=8, step=3).values or ()) == [1, 4, 7]
    assert Dimension("x", low=0.5, high=1.0).values is None


@pytest.mark.parametrize(
    ("dimension", "stored", "expected"),
    [
        (Dimension("x", low=0.0, high=1.0, step=0.1), [0.1, 0.3, 0.7, 0.75, 1.5], [0.1, 0.3, 0.7]),
        (Dimension("x", low=0.0, high=1.0), [0.25, 2.0], [0.25]),
        (Dimension("x", low=0, high=10**18), [10**12, 10**17 + 1, -1], [10**12, 10**17 + 1]),
        (Dimension("x", low=1, high=9, step=2), [1, 2, 3], [1, 3]),
        (Dimension("x", choices=("a", [1, 2])), ["[1, 2]", "b"], [[1, 2]]),
    ],
)
def test_values_among_those_of_a_grid(dimension: Dimension, stored: list[Any], expected: list[Any]) -> None:
    assert dimension.values_among(stored) == expected


def test_limit_of_a_float_range_keeps_its_last_step() -> None:
    assert Dimension("x", low=0.0, high=1.0, step=0.1, at_most={"y": 0.5}).within({"y": 0.6}).high == pytest.approx(0.3)
    assert Dimension("x", low=0.0, high=1.0, step=0.1, at_most={"y": 1.0}).within({"y": 0.7}).high == pytest.approx(0.7)
