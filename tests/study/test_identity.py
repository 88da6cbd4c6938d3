"""Comparison of a stored study with the call that would resume it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.identity import declared_measures, evaluation_flags, identity_problems
from lightning_hpo.study.spec import StudySpec
from tests.foreign import ForeignData, ForeignModule

SEARCHED: dict[str, dict[str, Any]] = {
    "model.lr": {"low": 0.01, "high": 1.0, "log": True},
    "data.batch_size": {"choices": [8, 16]},
}


class DeclaredData(ForeignData):
    MEASURES = frozenset({"rows"})


class FingerprintedData(ForeignData):
    MEASURES = frozenset({"rows"})
    fingerprint: str


class DeclaredModule(ForeignModule):
    MEASURES = frozenset({"hidden"})


@pytest.fixture
def spec(foreign_config: dict[str, Any]) -> StudySpec:
    return _spec(foreign_config)


def _spec(config: dict[str, Any], **trainer: Any) -> StudySpec:
    config = {**config, "trainer": {**config["trainer"], **trainer}}
    return StudySpec(AgentCLI(config, instantiate=False).values, SEARCHED, StudySettings(name="first"))


def _space(spec: StudySpec, **changes: Any) -> SearchSpace:
    return SearchSpace({**SEARCHED, "model.lr": {**SEARCHED["model.lr"], **changes}}, spec.config)


def _with_data(config: dict[str, Any], data: type, **arguments: Any) -> dict[str, Any]:
    return {**config, "data": {"class_path": f"{data.__module__}.{data.__name__}", "init_args": arguments}}


def _problems(study: optuna.Study, spec: StudySpec) -> list[str]:
    return identity_problems(study, spec, _space(spec))


@pytest.mark.parametrize(
    ("flag", "before", "now"),
    [
        ("limit_val_batches", 1, None),
        ("limit_val_batches", 1, 1.0),
        ("limit_val_batches", None, 2),
        ("overfit_batches", None, 1),
        ("fast_dev_run", False, 1),
        ("val_check_interval", None, 0.5),
    ],
)
def test_flag_that_changes_the_score_must_not_change(
    study: optuna.Study, foreign_config: dict[str, Any], flag: str, before: object, now: object
) -> None:
    study.set_user_attr("evaluation_flags", evaluation_flags(_spec(foreign_config, **{flag: before})))
    changed = _spec(foreign_config, **{flag: now})
    [problem] = _problems(study, changed)
    assert problem.startswith(f"--trainer.{flag}: first was started with ")
    assert problem.endswith("which changes what is measured; use the same, or another --study.name")
    assert _problems(study, _spec(foreign_config, **{flag: before})) == []


@pytest.mark.parametrize(
    "trainer",
    [{"limit_val_batches": 1.0}, {"max_epochs": 5}, {"check_val_every_n_epoch": 2}, {"precision": "bf16-mixed"}],
)
def test_other_flags_may_change(study: optuna.Study, foreign_config: dict[str, Any], trainer: dict[str, Any]) -> None:
    study.set_user_attr("evaluation_flags", evaluation_flags(_spec(foreign_config)))
    assert _problems(study, _spec(foreign_config, **trainer)) == []


def test_flags_of_the_identity_cannot_be_searched(spec: StudySpec) -> None:
    for flag in evaluation_flags(spec):
        if flag.startswith("trainer."):
            with pytest.raises(InputError, match=f"{flag}: must not be searched"):
                SearchSpace({flag: {"choices": [1]}}, spec.config)


def test_study_without_stored_flags_is_accepted(study: optuna.Study, foreign_config: dict[str, Any]) -> None:
    assert _problems(study, _spec(foreign_config, limit_val_batches=1)) == []


def test_flags_of_data_are_compared_by_what_its_module_declares(foreign_config: dict[str, Any]) -> None:
    def flags(data: type, **arguments: Any) -> dict[str, Any]:
        found = evaluation_flags(_spec(_with_data(foreign_config, data, **arguments)))
        return {flag: value for flag, value in found.items() if flag.startswith("data")}

    assert flags(DeclaredData, rows=32) == {"data.rows": 32}
    assert flags(FingerprintedData, rows=32) == {}
    # Any flag may change the evaluation data; `data.batch_size` is searched.
    assert flags(ForeignData, rows=32) == {"data.rows": 32, "data.placed": False}


def test_model_may_declare_flags_that_change_what_is_measured(foreign_config: dict[str, Any]) -> None:
    config = {**foreign_config, "model": {"class_path": "tests.study.test_identity.DeclaredModule"}}
    spec = _spec(config)
    assert evaluation_flags(spec)["model.hidden"] == 4
    assert declared_measures(spec.config, "val_metric") == ["model.hidden"]


def test_searching_the_loss_is_refused_only_if_the_loss_is_the_metric() -> None:
    config = {"model": {"class_path": "lightning_hpo.agents.CriteriaAgent"}}
    assert declared_measures(config, "val_loss") == ["model.loss"]
    assert declared_measures(config, "val_metric") == []


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"]])
def test_study_with_other_directions_is_refused(spec: StudySpec, directions: Any) -> None:
    study = optuna.create_study(study_name="first", directions=directions)
    [problem] = _problems(study, spec)
    assert problem.startswith("--study.name: first ")
    assert problem.endswith("use another --study.name")
    minimized = replace(spec, settings=replace(spec.settings, monitor="val_loss"))
    assert len(_problems(study, minimized)) == len(directions) - 1


def test_search_and_refit_do_not_meet_in_one_study(study: optuna.Study, spec: StudySpec) -> None:
    refit = replace(spec, attributes={"refit_of": "x"})
    assert _problems(study, refit) == []  # a command that was killed before it stored the attributes
    study.ask()
    [problem] = _problems(study, refit)
    assert problem == "--study.name: first is a search, not the refit of x; run the search under another name"
    study.set_user_attr("refit_of", "x")
    assert _problems(study, refit) == []
    [problem] = _problems(study, spec)
    assert problem == "--study.name: first is the refit of x, not a search; use another --study.name"


@pytest.mark.parametrize(
    ("changes", "now", "before"),
    [
        ({"log": False}, "a range of floats", "a range of floats with log: true"),
        ({"log": False, "step": 0.01}, "a range of floats with step: 0.01", "a range of floats with log: true"),
    ],
)
def test_range_that_is_drawn_in_another_way_is_refused(
    study: optuna.Study, spec: StudySpec, changes: dict[str, Any], now: str, before: str
) -> None:
    _space(spec).suggest(study.ask())
    [problem] = identity_problems(study, spec, _space(spec, **changes))
    assert problem == (
        f"search_space: model.lr: got {now}, but the study began with {before}; use that, or use another --study.name"
    )


@pytest.mark.parametrize(
    ("suggest", "before"),
    [
        (lambda trial: trial.suggest_categorical("data.batch_size", [8, 16, 32]), "the choices [8, 16, 32]"),
        (lambda trial: trial.suggest_categorical("data.batch_size", [16, 8]), "the choices [16, 8]"),
        (lambda trial: trial.suggest_int("data.batch_size", 8, 16), "an integer range"),
        (lambda trial: trial.suggest_int("data.batch_size", 8, 16, step=4), "an integer range with step: 4"),
    ],
)
def test_choices_must_be_those_of_every_trial(study: optuna.Study, spec: StudySpec, suggest: Any, before: str) -> None:
    suggest(study.ask())
    [problem] = _problems(study, spec)
    assert problem.startswith(
        f"search_space: data.batch_size: got the choices [8, 16], but the study began with {before};"
    )


def test_ends_of_a_range_may_change(study: optuna.Study, spec: StudySpec) -> None:
    _space(spec).suggest(study.ask())
    wider = _space(spec, low=0.001, high=2.0)
    assert identity_problems(study, spec, wider) == []
    wider.suggest(study.ask())  # Optuna accepts it too
    assert "model.lr" in study.trials[1].params


def test_study_of_an_earlier_version_is_compared_from_the_next_call_on(tmp_path: Path, spec: StudySpec) -> None:
    study = optuna.create_study(study_name="first", direction="maximize", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert _problems(study, spec) == []
    study.set_user_attr("evaluation_flags", evaluation_flags(spec))
    stored = optuna.load_study(study_name="first", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert _problems(stored, spec) == []
