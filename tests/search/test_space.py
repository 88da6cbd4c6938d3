from collections.abc import Callable
from typing import Any

import optuna
import pytest

from lightning_hpo.config.agent_cli import AgentCLI, resolve
from lightning_hpo.config.flags import flags
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.search.warm_start import WarmStart

Space = dict[str, Any]
Sample = Callable[[SearchSpace, dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    config = {
        "model": {"class_path": "tests.foreign.ForeignModule"},
        "data": {"class_path": "tests.foreign.ForeignData"},
    }
    return AgentCLI(config, instantiate=False).values


def _problems(space: Space, base: dict[str, Any], measures: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(InputError) as caught:
        SearchSpace(space, base, measures)
    return caught.value.problems


def _suggest(space: SearchSpace, **params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(params)
    trial = study.ask()
    return space.suggest(trial), trial.params


def test_a_name_with_a_slip_is_refused_with_the_nearest(base: dict[str, Any]) -> None:
    space = {"model.hiden": {"low": 1, "high": 2}, "trainer.lr": {"low": 0.1, "high": 1.0}}
    assert _problems(space, base) == [
        "search_space: model.hiden: `fit` has no such flag; did you mean model.hidden?",
        "search_space: trainer.lr: `fit` has no such flag; did you mean model.lr?",
    ]


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ({"choices": [0.1, "fast"]}, ["'fast'"]),
        ({"choices": ["fast", "slow"]}, ["'fast'", "'slow'"]),
        ({"choices": [[0.1]]}, ["[0.1]"]),
    ],
)
def test_a_choice_that_the_flag_refuses_is_named(base: dict[str, Any], entry: Space, refused: list[str]) -> None:
    problems = _problems({"model.lr": entry}, base)
    assert [line.split(":")[2].split(" is refused")[0].strip() for line in problems] == refused
    assert all("Expected a float" in line and "\n" not in line for line in problems)


@pytest.mark.parametrize(
    ("entry", "refused"),
    [
        ({"low": 1.5, "high": 4.5}, ["1.5", "4.5"]),
        ({"low": 1, "high": 4, "step": 0.5}, ["1.5"]),
    ],
)
def test_a_range_of_fractions_is_refused_by_a_flag_of_whole_numbers(
    base: dict[str, Any], entry: Space, refused: list[str]
) -> None:
    lines = _problems({"model.hidden": entry}, base)
    assert [line.split(" is refused")[0] for line in lines] == [f"search_space: model.hidden: {x}" for x in refused]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (3, "got 3; use {low: ..., high: ...} or {choices: [...]}"),
        ({}, "use either choices, or low and high"),
        ({"choices": [1], "low": 1}, "use either choices, or low and high"),
        ({"choices": []}, "choices: got []; use a list with at least one value"),
        ({"choices": 0.1}, "choices: got 0.1; use a list with at least one value"),
        ({"choices": [0.1, 0.2, 0.1]}, "choices: a value stands there twice"),
        ({"low": 0.1}, "high is missing"),
        ({"low": 0.2, "high": 0.2}, "the range is empty: low 0.2, high 0.2; low must be below high"),
        ({"low": 0.3, "high": 0.2}, "the range is empty: low 0.3, high 0.2; low must be below high"),
        ({"low": "1e-4", "high": 0.1}, "low: got '1e-4'; use a number (YAML reads 1e-4 as text; write 1.0e-4)"),
        ({"low": True, "high": 2}, "low: got True; use a number"),
        ({"low": 0.1, "high": float("inf")}, "high: got inf; use a number"),
        ({"low": float("nan"), "high": 1}, "low: got nan; use a number"),
        ({"low": 0, "high": 1, "log": True}, "log: low is 0; a logarithmic range starts above 0"),
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
        ({"low": 1, "high": 2, "when": "always"}, "when: got 'always'; use {other.flag: value}"),
    ],
)
def test_an_entry_that_says_nothing_sound_is_refused(base: dict[str, Any], entry: Any, problem: str) -> None:
    assert _problems({"model.lr": entry}, base) == [f"search_space: model.lr: {problem}"]


@pytest.mark.parametrize(
    "flag", ["seed_everything", "trainer.limit_val_batches", "trainer.val_check_interval", "data", "model", "data.rows"]
)
def test_what_changes_the_measure_is_refused(base: dict[str, Any], flag: str) -> None:
    assert _problems({flag: {"choices": [1]}}, base, ("data.rows",)) == [
        f"search_space: {flag}: changes what is measured, so trials could not be compared; set it in the config"
    ]


def test_a_data_flag_that_measures_nothing_may_be_searched(base: dict[str, Any]) -> None:
    assert list(SearchSpace({"data.rows": {"choices": [16, 32]}}, base).dimensions) == ["data.rows"]


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ({"model.fals": True}, "model.lr: when: model.fals is not searched; did you mean model.fails?"),
        ({"trainer.max_epochs": 3}, "model.lr: when: trainer.max_epochs is not searched"),
        ({"model.fails": "yes"}, "model.lr: when: model.fails can never be 'yes'"),
        ({"model.hidden": 9}, "model.lr: when: model.hidden can never be 9"),
        ({"model.hidden": [9, "x"]}, "model.lr: when: model.hidden can never be [9, 'x']"),
        ({"model.lr": 0.1}, "when, at_most: conditions wait for each other in a circle"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(base: dict[str, Any], when: Space, problem: str) -> None:
    space = {
        "model.fails": {"choices": [True, False]},
        "model.hidden": {"low": 1, "high": 8},
        "model.lr": {"low": 0.1, "high": 1.0, "when": when},
    }
    assert _problems(space, base) == [f"search_space: {problem}"]


def test_conditions_in_a_circle_are_refused(base: dict[str, Any]) -> None:
    space = {
        "model.hidden": {"low": 1, "high": 4, "when": {"model.lr": 0.1}},
        "model.lr": {"choices": [0.1, 0.2], "when": {"model.hidden": 1}},
    }
    assert _problems(space, base) == ["search_space: when, at_most: conditions wait for each other in a circle"]


@pytest.mark.parametrize(
    ("at_most", "problem"),
    [
        (0.5, "at_most: got 0.5; use {other.flag: share of its value, such as 0.5}"),
        ({"model.hidden": 0}, "at_most: got {'model.hidden': 0}; use {other.flag: share of its value, such as 0.5}"),
        ({"model.hiden": 0.5}, "at_most: model.hiden is not searched; did you mean model.hidden?"),
        ({"model.fails": 0.5}, "at_most: model.fails has choices that are no numbers"),
        ({"model.hidden": 0.5}, "at_most: model.hidden ends the range at 2 where it is 4, below low: 3"),
    ],
)
def test_a_limit_that_leaves_nothing_is_refused(base: dict[str, Any], at_most: Any, problem: str) -> None:
    space = {
        "model.fails": {"choices": ["yes", "no"]},
        "model.hidden": {"low": 4, "high": 8},
        "trainer.accumulate_grad_batches": {"low": 3, "high": 9, "at_most": at_most},
    }
    base["model"]["init_args"]["fails"] = "no"
    found = [line for line in _problems(space, base) if "at_most" in line]
    assert found == [f"search_space: trainer.accumulate_grad_batches: {problem}"]


def test_a_range_ends_where_another_flag_says(base: dict[str, Any]) -> None:
    space = SearchSpace(
        {
            "trainer.accumulate_grad_batches": {"low": 2, "high": 8, "step": 3, "at_most": {"model.hidden": 0.5}},
            "model.hidden": {"low": 4, "high": 30},
        },
        base,
    )
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=4, multivariate=True, seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        values = space.suggest(trial)
        assert values["trainer.accumulate_grad_batches"] <= max(2, values["model.hidden"] / 2)
        seen.add(values["trainer.accumulate_grad_batches"])
        study.tell(trial, values["model.hidden"])
    assert seen == {2, 5, 8}
    least = {"model.hidden": 4, "trainer.accumulate_grad_batches": 2}
    assert [corner for corner in space.corners(list(least)) if corner["model.hidden"] == 4] == [least]


def test_every_error_is_told_at_once(base: dict[str, Any]) -> None:
    space = {
        "model.lr": {"low": 2, "high": 1},
        "model.hiden": {"choices": [1]},
        "trainer.fast_dev_run": {"choices": [True]},
        "model.hidden": {"choices": [1, 2], "when": {"model.diverges": True}},
    }
    problems = _problems(space, base)
    assert [line.split(":")[1].strip() for line in problems] == [
        "model.lr", "model.hiden", "trainer.fast_dev_run", "model.hidden",
    ]  # fmt: skip


def test_a_conditional_flag_is_sampled_only_when_its_condition_holds(base: dict[str, Any]) -> None:
    space = SearchSpace(
        {
            "aug.p_apply": {"low": 0.05, "high": 0.3, "step": 0.05, "when": {"aug.enabled": True}},
            "aug.max_share": {"low": 0.1, "high": 0.2, "when": {"aug.p_apply": [0.05, 0.1]}},
            "aug.enabled": {"choices": [True, False]},
        },
        base,
    )
    off, params = _suggest(space, **{"aug.enabled": False})
    assert off == params == {"aug.enabled": False}
    on, params = _suggest(space, **{"aug.enabled": True, "aug.p_apply": 0.3})
    assert on == params == {"aug.enabled": True, "aug.p_apply": 0.3}
    nested, params = _suggest(space, **{"aug.enabled": True, "aug.p_apply": 0.1, "aug.max_share": 0.15})
    assert nested == params == {"aug.enabled": True, "aug.p_apply": 0.1, "aug.max_share": 0.15}


@pytest.mark.parametrize(
    ("flag", "entry", "distribution"),
    [
        ("model.lr", {"low": 0, "high": 1}, optuna.distributions.FloatDistribution(0.0, 1.0)),
        (
            "model.lr",
            {"low": 1.0e-5, "high": 0.1, "log": True},
            optuna.distributions.FloatDistribution(1e-5, 0.1, log=True),
        ),
        (
            "model.lr",
            {"low": 0.1, "high": 0.5, "step": 0.2},
            optuna.distributions.FloatDistribution(0.1, 0.5, step=0.2),
        ),
        ("model.hidden", {"low": 1, "high": 64, "log": True}, optuna.distributions.IntDistribution(1, 64, log=True)),
        ("model.hidden", {"low": 2, "high": 8, "step": 2}, optuna.distributions.IntDistribution(2, 8, step=2)),
        ("model.hidden", {"choices": [4, 8]}, optuna.distributions.CategoricalDistribution([4, 8])),
    ],
)
def test_an_entry_is_what_optuna_samples(
    base: dict[str, Any], flag: str, entry: Space, distribution: optuna.distributions.BaseDistribution
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    value = SearchSpace({flag: entry}, base).suggest(trial)[flag]
    assert trial.distributions == {flag: distribution}
    assert trial.params == {flag: value}


def test_choices_may_be_lists(base: dict[str, Any]) -> None:
    space = SearchSpace({"aug.methods": {"choices": [["swap"], ["swap", "delete"]]}}, base)
    value, params = _suggest(space, **{"aug.methods": '["swap", "delete"]'})
    assert value == {"aug.methods": ["swap", "delete"]}
    assert params == {"aug.methods": '["swap", "delete"]'}


def test_the_choices_of_the_categorical_flags(base: dict[str, Any]) -> None:
    space = SearchSpace({"model.hidden": {"choices": [4, 8]}, "model.lr": {"low": 0.1, "high": 1.0}}, base)
    assert space.choices == {"model.hidden": (4, 8)}


def test_every_flag_of_the_agents_in_the_plan_can_be_searched() -> None:
    config = {
        "model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": "roberta-base"}},
        "data": {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {"posts": "posts.csv"}},
    }
    agents = AgentCLI(config, instantiate=False).values
    space = {
        "model.name": {"choices": ["roberta-base", "microsoft/deberta-v3-base"]},
        "model.optim.lr": {"low": 5.0e-6, "high": 3.0e-4, "log": True},
        "aug.enabled": {"choices": [True, False]},
        "aug.p_apply": {"low": 0.05, "high": 0.30, "step": 0.05, "when": {"aug.enabled": True}},
    }
    assert set(SearchSpace(space, agents).dimensions) == set(space) <= set(flags(agents))
    assert _problems({"data.val_fraction": {"choices": [0.1]}}, agents, ("data.val_fraction",))


def _warm_start(best: dict[str, Any], narrow: float | None = None, fix: tuple[str, ...] = ()) -> WarmStart:
    return WarmStart("other", 0, 0.5, best, [], {}, queue=3, narrow=narrow, fix=list(fix))


def test_ranges_are_narrowed_around_the_best_and_choices_are_left(base: dict[str, Any]) -> None:
    space = {
        "model.lr": {"low": 1.0e-5, "high": 0.1, "log": True},
        "model.hidden": {"low": 4, "high": 64},
        "trainer.gradient_clip_val": {"low": 0.0, "high": 2.0, "step": 0.25},
        "aug.p_apply": {"low": 0.0, "high": 1.0},
        "data.batch_size": {"choices": [8, 16]},
    }
    best = {"model.lr": 0.05, "model.hidden": 20, "trainer.gradient_clip_val": 1.25, "data.batch_size": 8}
    found = SearchSpace(space, base, warm_start=_warm_start(best, 0.25)).dimensions
    assert (found["model.lr"].low, found["model.lr"].high) == pytest.approx((0.05 / 10**0.5, 0.1))
    assert (found["model.hidden"].low, found["model.hidden"].high) == (12, 28)  # 12.5 to 27.5, outwards
    assert found["model.hidden"].whole
    assert (found["trainer.gradient_clip_val"].low, found["trainer.gradient_clip_val"].high) == (1.0, 1.5)
    assert (found["aug.p_apply"].low, found["aug.p_apply"].high) == (0.0, 1.0)  # the best has none
    assert found["data.batch_size"].choices == (8, 16)
    assert SearchSpace(space, base, warm_start=_warm_start(best)).dimensions == SearchSpace(space, base).dimensions


def test_a_narrowed_range_keeps_a_neighbour_and_its_reach_for_a_flag_that_ends_it(base: dict[str, Any]) -> None:
    space = {
        "model.hidden": {"low": 4, "high": 30},
        "trainer.accumulate_grad_batches": {"low": 2, "high": 8, "at_most": {"model.hidden": 0.5}},
    }
    best = {"model.hidden": 40, "trainer.accumulate_grad_batches": 8}
    found = SearchSpace(space, base, warm_start=_warm_start(best, 0.01)).dimensions
    assert (found["model.hidden"].low, found["model.hidden"].high) == (29, 30)
    assert found["trainer.accumulate_grad_batches"].ends == (2, 8)


def test_what_is_fixed_is_not_sampled_and_still_decides_what_is(base: dict[str, Any]) -> None:
    space = {
        "aug.enabled": {"choices": [True, False]},
        "aug.p_apply": {"low": 0.1, "high": 0.3, "when": {"aug.enabled": True}},
        "model.hidden": {"low": 4, "high": 30},
        "trainer.accumulate_grad_batches": {"low": 2, "high": 8, "at_most": {"model.hidden": 0.5}},
    }
    warm_start = _warm_start({}, fix=("aug.enabled", "model.hidden"))
    for enabled, hidden, sampled in ((True, 8, ["aug.p_apply"]), (False, 50, [])):
        fixed = resolve(base, {"aug.enabled": enabled, "model.hidden": hidden})
        found = SearchSpace(space, fixed, warm_start=warm_start)
        trial = optuna.create_study().ask()
        values = found.suggest(trial)
        assert list(values) == [*sampled, "trainer.accumulate_grad_batches"]
        assert trial.params == values
        kind = trial.distributions["trainer.accumulate_grad_batches"]
        assert isinstance(kind, optuna.distributions.IntDistribution)
        assert kind.high == min(8, hidden // 2)
    with pytest.raises(InputError, match="ends the range at 1 where it is 2, below low: 2"):
        SearchSpace(space, resolve(base, {"model.hidden": 2}), warm_start=warm_start)


def test_the_defaults_come_first_and_no_point_twice(base: dict[str, Any]) -> None:
    space = SearchSpace(
        {"model.lr": {"low": 0.01, "high": 1.0}, "aug.methods": {"choices": [["swap"], ["swap", "delete"]]}}, base
    )
    defaults = {"model.lr": 0.1, "aug.methods": '["swap", "delete"]'}
    other = {"model.lr": 0.2, "aug.methods": '["swap"]'}
    assert space.first_points([defaults | {"model.hidden": 3}, other, {"model.hidden": 3}]) == [defaults, other]
    warm_start = _warm_start({}, fix=("model.lr",))
    assert SearchSpace({"model.lr": {"low": 0.01, "high": 1.0}}, base, warm_start=warm_start).first_points() == []
