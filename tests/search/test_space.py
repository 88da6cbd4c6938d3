from collections.abc import Callable
from typing import Any

import optuna
import pytest

from lightning_hpo.config.agent_cli import AgentCLI, resolve
from lightning_hpo.config.flags import flags, with_flags
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.bounds import corners
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


def _problems(space: Space, base: dict[str, Any], not_searchable: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(InputError) as caught:
        SearchSpace(space, base, not_searchable)
    return caught.value.problems


def _suggest(space: SearchSpace, **params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(params)
    trial = study.ask()
    return space.suggest(trial), trial.params


def test_an_unknown_flag_is_rejected_with_a_suggestion(base: dict[str, Any]) -> None:
    space = {flag: {"low": 0.1, "high": 1.0} for flag in ("model.hiden", "trainer.lr", "nothing")}
    assert _problems(space, base) == [
        "search_space: model.hiden: `fit` has no such flag; did you mean model.hidden?",
        "search_space: trainer.lr: `fit` has no such flag; did you mean model.lr?",
        "search_space: nothing: `fit` has no such flag; `fit --help` lists all flags",
    ]


@pytest.mark.parametrize(
    ("entry", "rejected"),
    [
        ({"choices": [0.1, "fast"]}, ["'fast'"]),
        ({"choices": ["fast", "slow"]}, ["'fast'", "'slow'"]),
        ({"choices": [[0.1]]}, ["[0.1]"]),
    ],
)
def test_a_choice_of_the_wrong_type_is_reported(base: dict[str, Any], entry: Space, rejected: list[str]) -> None:
    problems = _problems({"model.lr": entry}, base)
    assert [line.split(":")[2].split(" is not valid")[0].strip() for line in problems] == rejected
    assert all("Expected a float" in line and "\n" not in line for line in problems)


@pytest.mark.parametrize(
    ("entry", "rejected"),
    [
        ({"low": 1.5, "high": 4.5}, ["1.5", "4.5"]),
        ({"low": 1, "high": 4, "step": 0.5}, ["1.5"]),
    ],
)
def test_a_range_of_floats_is_rejected_for_an_integer_flag(
    base: dict[str, Any], entry: Space, rejected: list[str]
) -> None:
    lines = _problems({"model.hidden": entry}, base)
    assert [line.split(" is not valid")[0] for line in lines] == [f"search_space: model.hidden: {x}" for x in rejected]


@pytest.mark.parametrize(
    "flag",
    [
        *("seed_everything", "trainer.limit_val_batches", "trainer.val_check_interval", "data", "model", "data.rows"),
        "data.aliases.SLEEP",
    ],
)
def test_a_flag_that_changes_the_evaluation_is_rejected(base: dict[str, Any], flag: str) -> None:
    with_aliases = with_flags(base, {"data.aliases": {"SLEEP": 1}})
    assert _problems({flag: {"choices": [1]}}, with_aliases, ("data.rows", "data.aliases")) == [
        f"search_space: {flag}: must not be searched (changes evaluation or seed); set it in the config"
    ]


def test_other_data_flags_can_be_searched(base: dict[str, Any]) -> None:
    assert list(SearchSpace({"data.rows": {"choices": [16, 32]}}, base).dimensions) == ["data.rows"]


def test_at_most_limits_a_range_by_another_flag(base: dict[str, Any]) -> None:
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
    assert [corner for corner in corners(space.dimensions, list(least)) if corner["model.hidden"] == 4] == [least]


def test_all_problems_are_reported_at_once(base: dict[str, Any]) -> None:
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


def test_a_conditional_flag_is_sampled_only_if_its_condition_is_true(base: dict[str, Any]) -> None:
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
def test_an_entry_becomes_the_matching_optuna_distribution(
    base: dict[str, Any], flag: str, entry: Space, distribution: optuna.distributions.BaseDistribution
) -> None:
    study = optuna.create_study()
    trial = study.ask()
    value = SearchSpace({flag: entry}, base).suggest(trial)[flag]
    assert trial.distributions == {flag: distribution}
    assert trial.params == {flag: value}


def test_choices_can_be_lists(base: dict[str, Any]) -> None:
    space = SearchSpace({"aug.methods": {"choices": [["swap"], ["swap", "delete"]]}}, base)
    value, params = _suggest(space, **{"aug.methods": '["swap", "delete"]'})
    assert value == {"aug.methods": ["swap", "delete"]}
    assert params == {"aug.methods": '["swap", "delete"]'}


def test_choices_are_those_of_the_categorical_flags(base: dict[str, Any]) -> None:
    space = SearchSpace({"model.hidden": {"choices": [4, 8]}, "model.lr": {"low": 0.1, "high": 1.0}}, base)
    assert space.choices == {"model.hidden": (4, 8)}


def test_model_data_and_augmentation_flags_of_an_agent_can_be_searched() -> None:
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


def test_ranges_are_narrowed_around_the_best_and_choices_are_kept(base: dict[str, Any]) -> None:
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
    assert found["model.hidden"].is_integer
    assert (found["trainer.gradient_clip_val"].low, found["trainer.gradient_clip_val"].high) == (1.0, 1.5)
    assert (found["aug.p_apply"].low, found["aug.p_apply"].high) == (0.0, 1.0)  # the best trial does not have it
    assert found["data.batch_size"].choices == (8, 16)
    assert SearchSpace(space, base, warm_start=_warm_start(best)).dimensions == SearchSpace(space, base).dimensions


def test_a_narrowed_range_keeps_a_neighbour_and_a_limited_one_its_lower_end(base: dict[str, Any]) -> None:
    space = {
        "model.hidden": {"low": 4, "high": 30},
        "trainer.accumulate_grad_batches": {"low": 2, "high": 8, "at_most": {"model.hidden": 0.5}},
    }
    best = {"model.hidden": 40, "trainer.accumulate_grad_batches": 8}
    found = SearchSpace(space, base, warm_start=_warm_start(best, 0.01)).dimensions
    assert (found["model.hidden"].low, found["model.hidden"].high) == (29, 30)
    assert found["trainer.accumulate_grad_batches"].ends == (2, 8)


def test_a_fixed_flag_is_not_sampled_but_its_conditions_apply(base: dict[str, Any]) -> None:
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
    with pytest.raises(InputError, match=r"the range would end at 0\.5 x 2 = 1, below low: 2"):
        SearchSpace(space, resolve(base, {"model.hidden": 2}), warm_start=warm_start)


def test_first_points_start_with_the_defaults_and_have_no_duplicates(base: dict[str, Any]) -> None:
    space = SearchSpace(
        {"model.lr": {"low": 0.01, "high": 1.0}, "aug.methods": {"choices": [["swap"], ["swap", "delete"]]}}, base
    )
    defaults = {"model.lr": 0.1, "aug.methods": '["swap", "delete"]'}
    other = {"model.lr": 0.2, "aug.methods": '["swap"]'}
    assert space.first_points([defaults | {"model.hidden": 3}, other, {"model.hidden": 3}]) == [defaults, other]
    warm_start = _warm_start({}, fix=("model.lr",))
    assert SearchSpace({"model.lr": {"low": 0.01, "high": 1.0}}, base, warm_start=warm_start).first_points() == []


def test_flags_whose_value_in_the_config_is_not_in_the_space_are_named() -> None:
    data = {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {"posts": "posts.csv"}}
    model = {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": "encoder"}}
    base = AgentCLI({"model": model, "data": data}, instantiate=False).values
    entries: Space = {
        "model.optim.lr": {"low": 1.0e-3, "high": 1.0e-1},
        "model.dropout": {"low": 0.0, "high": 0.3},
        "model.loss.name": {"choices": ["cross_entropy", "focal"]},
        "model.loss.alpha": {"low": 0.1, "high": 0.9, "when": {"model.loss.name": "focal"}},
    }
    lines = SearchSpace(entries, base).defaults_outside()
    assert [line.split(": ")[1] for line in lines] == ["model.optim.lr", "model.dropout"]
    assert lines[1] == (
        "search_space: model.dropout: the config has no value, which is not in the search space, so the first trial "
        "draws another"
    )
    held: Space = {
        "model.dropout": {"choices": [None, 0.1]},
        "model.optim.lr": {"low": 1.0e-6, "high": 1.0e-1, "log": True},
    }
    assert SearchSpace(held, base).defaults_outside() == []
