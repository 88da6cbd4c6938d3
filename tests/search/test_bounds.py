from typing import Any

import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.bounds import corners
from lightning_hpo.search.dimension import Dimension
from lightning_hpo.search.space import SearchSpace

Space = dict[str, Any]


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    config = {
        "model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": "roberta-base"}},
        "data": {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {"posts": "posts.csv"}},
    }
    return AgentCLI(config, instantiate=False).values


def _problems(space: Space, base: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        SearchSpace(space, base)
    return caught.value.problems


@pytest.mark.parametrize(
    ("flag", "entry", "value", "reason"),
    [
        ("model.dropout", {"low": 0.0, "high": 1.5}, "1.5", "--model.dropout: got 1.5; it must be from 0 to 0.95"),
        ("model.dropout", {"choices": [0.1, -0.1]}, "-0.1", "--model.dropout: got -0.1; it must be from 0 to 0.95"),
        ("model.freeze_layers", {"low": -1, "high": 6}, "-1", "--model.freeze_layers: got -1; it must be from 0"),
        ("model.optim.layer_decay", {"low": 0.8, "high": 1.2}, "1.2", "--model.optim.layer_decay: got 1.2; it must be"),
        ("model.head.dropout", {"low": -0.5, "high": 0.5}, "-0.5", "--model.head.dropout: got -0.5; it must be"),
        ("model.loss.gamma", {"low": 1.0, "high": 50.0}, "50.0", "--model.loss.gamma: got 50.0; it must be from 0 to"),
        ("data.batch_size", {"choices": [8, 0]}, "0", "--data.batch_size: got 0; it must be 1 or more"),
        (
            "data.max_length",
            {"low": 64, "high": 512},
            "64",
            "--data.stride: got 128; it must be below --data.max_length, 64",
        ),
        ("aug.p_apply", {"low": 0.5, "high": 1.5}, "1.5", "--aug.p_apply: got 1.5; it must be from 0 to 1"),
        ("trainer.accumulate_grad_batches", {"low": 0, "high": 8}, "0", "--trainer.accumulate_grad_batches: got 0; it"),
        ("trainer.gradient_clip_val", {"low": -1.0, "high": 1.5}, "-1.0", "--trainer.gradient_clip_val: got -1.0; it"),
    ],
)
def test_a_bound_that_violates_a_rule_of_its_flag_is_reported(
    base: dict[str, Any], flag: str, entry: Space, value: str, reason: str
) -> None:
    (line,) = _problems({flag: entry}, base)
    assert line.startswith(f"search_space: {flag}: {value} is not valid: {reason}")


def test_all_bounds_are_reported_at_once(base: dict[str, Any]) -> None:
    space = {"model.dropout": {"low": -1.0, "high": 2.0}, "aug.max_share": {"choices": [0.2, 1.0]}}
    assert [line.split(" is not valid")[0] for line in _problems(space, base)] == [
        "search_space: model.dropout: -1.0",
        "search_space: model.dropout: 2.0",
        "search_space: aug.max_share: 1.0",
    ]


def test_two_bounds_that_are_valid_alone_but_not_together_are_reported(base: dict[str, Any]) -> None:
    space = {"data.max_length": {"low": 192, "high": 512}, "data.stride": {"low": 32, "high": 256}}
    assert _problems(space, base) == [
        "search_space: data.max_length: 192 with data.stride: 256 is not valid: --data.stride: got 256; it must be "
        "below --data.max_length, 192"
    ]


def test_combinations_that_no_trial_can_have_are_accepted(base: dict[str, Any]) -> None:
    space = {
        "data.max_length": {"choices": [192, 512]},
        "data.stride": {"low": 32, "high": 256, "when": {"data.max_length": 512}},
        "model.name": {"choices": ["bert-base-cased", "roberta-base"]},
    }
    assert set(SearchSpace(space, base).dimensions) == set(space)


def test_problems_of_the_config_are_not_reported_for_the_space(base: dict[str, Any]) -> None:
    model = base["model"] | {"init_args": base["model"]["init_args"] | {"dropout": 3.0}}
    SearchSpace({"model.optim.lr": {"low": 1.0e-5, "high": 1.0e-3}}, base | {"model": model})


def _dimensions(*dimensions: Dimension) -> dict[str, Dimension]:
    return {dimension.flag: dimension for dimension in dimensions}


def test_corners_are_all_combinations_of_bounds_that_a_trial_can_have() -> None:
    dimensions = _dimensions(
        Dimension("kind", choices=("a", "b")),
        Dimension("size", low=1, high=9, step=2),
        Dimension("power", low=0.5, high=2.0, when={"kind": "a"}),
        Dimension("other", low=0, high=1),
    )
    assert corners(dimensions, ["size"]) == [{"size": 1}, {"size": 9}]
    assert corners(dimensions, ["power"]) == [
        {"kind": "a", "power": 0.5},
        {"kind": "a", "power": 2.0},
        {"kind": "b"},
    ]
    assert len(corners(dimensions, ["power", "size"])) == 6
    assert corners(dimensions, ["unknown"]) == [{}]


def test_corners_include_a_flag_whose_condition_is_inside_a_range() -> None:
    dimensions = _dimensions(Dimension("layers", low=0, high=4), Dimension("width", low=8, high=64, when={"layers": 2}))
    found = corners(dimensions, ["width"])
    assert [corner for corner in found if "width" in corner] == [
        {"layers": 2, "width": 8},
        {"layers": 2, "width": 64},
    ]
