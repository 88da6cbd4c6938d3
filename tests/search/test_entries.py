from typing import Any

import pytest

from lightning_hpo.search.entries import condition_problems, parents_first, read_entries


def _problems(config: dict[str, Any]) -> list[str]:
    dimensions, problems = read_entries(config)
    return problems + condition_problems(dimensions)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (3, "got 3; use {low: ..., high: ...} or {choices: [...]}"),
        ({}, "got {}; use either choices, or low and high"),
        ({"choices": [1], "low": 1}, "got {'choices': [1], 'low': 1}; use either choices, or low and high"),
        ({"choices": []}, "choices: got []; use a list with at least one value"),
        ({"choices": 0.1}, "choices: got 0.1; use a list with at least one value"),
        ({"choices": [0.1, 0.2, 0.1]}, "choices: got 0.1 twice; list each value once"),
        ({"low": 0.1}, "high: missing; a range needs low and high"),
        ({"low": 0.2, "high": 0.2}, "got an empty range, low 0.2 and high 0.2; low must be below high"),
        ({"low": 0.3, "high": 0.2}, "got an empty range, low 0.3 and high 0.2; low must be below high"),
        ({"low": "1e-4", "high": 0.1}, "low: got '1e-4'; use a number (YAML reads 1e-4 as text; write 1.0e-4)"),
        ({"low": True, "high": 2}, "low: got True; use a number"),
        ({"low": 0.1, "high": float("inf")}, "high: got inf; use a number"),
        ({"low": float("nan"), "high": 1}, "low: got nan; use a number"),
        ({"low": 0, "high": 1, "log": True}, "log: got low 0; a logarithmic range must start above 0"),
        ({"low": 0.1, "high": 1, "log": "yes"}, "log: got 'yes'; use true or false"),
        ({"low": 1, "high": 2, "step": 0}, "step: got 0; use a number above 0, and not together with log: true"),
        (
            {"low": 1, "high": 2, "step": 0.1, "log": True},
            "step: got 0.1; use a number above 0, and not together with log: true",
        ),
        (
            {"low": 1, "high": 2, "choicess": [1]},
            "unknown 'choicess'; did you mean choices?; use at_most, choices, high, log, low, step, when",
        ),
        (
            {"choices": [1], "at_most": {"model.hidden": 0.5}},
            "at_most: got choices; use low and high instead",
        ),
        ({"low": 1, "high": 2, "when": "always"}, "when: got 'always'; use {other.flag: value}"),
    ],
)
def test_an_invalid_entry_is_rejected(entry: Any, problem: str) -> None:
    assert read_entries({"model.lr": entry})[1] == [f"search_space: model.lr: {problem}"]


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ({"model.fals": True}, "model.lr: when: model.fals is not searched; did you mean model.fails?"),
        ({"trainer.max_epochs": 3}, "model.lr: when: trainer.max_epochs is not searched; add it to search_space"),
        ({"model.fails": "yes"}, "model.lr: when: model.fails: got 'yes'; use a value of [True, False]"),
        ({"model.hidden": 9}, "model.lr: when: model.hidden: got 9; use a value from 1 to 8"),
        ({"model.hidden": [9, "x"]}, "model.lr: when: model.hidden: got [9, 'x']; use a value from 1 to 8"),
        ({"model.lr": 0.1}, "when, at_most: conditions depend on each other in a circle: model.lr"),
    ],
)
def test_a_condition_that_is_never_true_is_rejected(when: dict[str, Any], problem: str) -> None:
    space = {
        "model.fails": {"choices": [True, False]},
        "model.hidden": {"low": 1, "high": 8},
        "model.lr": {"low": 0.1, "high": 1.0, "when": when},
    }
    assert _problems(space) == [f"search_space: {problem}"]


def test_circular_conditions_are_rejected() -> None:
    space = {
        "model.hidden": {"low": 1, "high": 4, "when": {"model.lr": 0.1}},
        "model.lr": {"choices": [0.1, 0.2], "when": {"model.hidden": 1}},
    }
    assert _problems(space) == [
        "search_space: when, at_most: conditions depend on each other in a circle: model.hidden, model.lr"
    ]


@pytest.mark.parametrize(
    ("at_most", "problem"),
    [
        (0.5, "at_most: got 0.5; use {other.flag: share of its value, such as 0.5}"),
        ({"model.hidden": 0}, "at_most: got {'model.hidden': 0}; use {other.flag: share of its value, such as 0.5}"),
        ({"model.hiden": 0.5}, "at_most: model.hiden is not searched; did you mean model.hidden?"),
        (
            {"model.fails": 0.5},
            "at_most: model.fails: got choices that are not numbers; use a flag with numbers",
        ),
        (
            {"model.hidden": 0.5},
            "at_most: model.hidden: the range would end at 0.5 x 4 = 2, below low: 3; raise the share or reduce low",
        ),
    ],
)
def test_a_limit_that_can_leave_an_empty_range_is_rejected(at_most: Any, problem: str) -> None:
    space = {
        "model.fails": {"choices": ["yes", "no"]},
        "model.hidden": {"low": 4, "high": 8},
        "trainer.accumulate_grad_batches": {"low": 3, "high": 9, "at_most": at_most},
    }
    assert _problems(space) == [f"search_space: trainer.accumulate_grad_batches: {problem}"]


def test_a_key_that_is_not_a_string_is_rejected() -> None:
    assert read_entries({3: {"choices": [1]}}) == (
        {},
        ["search_space: 3: is not a flag; use a flag of `fit` as key, such as model.optim.lr"],
    )


def test_flags_are_ordered_after_the_flags_in_their_conditions() -> None:
    dimensions, problems = read_entries(
        {
            "c": {"low": 0, "high": 1, "when": {"b": 1}},
            "b": {"low": 1, "high": 8, "at_most": {"a": 0.5}},
            "a": {"low": 2, "high": 9},
        }
    )
    assert problems == condition_problems(dimensions) == []
    assert list(parents_first(dimensions)) == ["a", "b", "c"]
