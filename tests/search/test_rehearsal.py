"""Rehearsal of samplers, most of which need packages that this project does not depend on."""

from typing import Any

import optuna
import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.rehearsal import rehearse_sampler
from lightning_hpo.search.space import SearchSpace
from tests.study_sandbox import study_flags

RANGES = {"model.lr": {"low": 0.1, "high": 0.7}, "model.hidden": {"low": 2, "high": 16}}


class FailingSampler(optuna.samplers.RandomSampler):
    """Fails as soon as there is a complete trial, as a sampler does that learns from them."""

    def sample_independent(self, study: optuna.Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if any(each.state.is_finished() for each in study.trials):
            raise KeyError("no model\nof it")
        return super().sample_independent(study, trial, param_name, param_distribution)


@pytest.fixture
def space(foreign_config: dict[str, Any]) -> SearchSpace:
    return SearchSpace(RANGES, AgentCLI(foreign_config, instantiate=False).values)


def _rehearse(space: SearchSpace, *arguments: str, stored: optuna.Study | None = None) -> None:
    rehearse_sampler(study_flags("--study.sampler", *arguments).sampler, 17, space, "maximize", stored)


def _problem(space: SearchSpace, *arguments: str) -> str:
    with pytest.raises(InputError) as error:
        _rehearse(space, *arguments)
    [problem] = error.value.problems
    return problem


def test_sampler_without_its_package_is_refused(space: SearchSpace) -> None:
    with pytest.raises(ImportError):
        __import__("cmaes")
    problem = _problem(space, "CmaEsSampler")
    assert problem == "--study.sampler: CmaEsSampler needs the package cmaes: pip install cmaes; or use another one"


def test_package_that_is_imported_only_after_the_random_start_is_missed(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("optuna.samplers._gp.sampler.gp.fit_kernel_params", model)
    assert _problem(space, "GPSampler").startswith(
        "--study.sampler: GPSampler needs the package torch: pip install torch"
    )


def test_grid_without_a_searched_flag_is_refused(space: SearchSpace) -> None:
    problem = _problem(space, "GridSampler", "--study.sampler.search_space", "{model.hidden: [2, 4]}")
    assert problem.startswith("--study.sampler: GridSampler cannot be used in this study: ValueError: ")
    assert "model.lr" in problem


def test_any_exception_of_a_sampler_is_one_line(space: SearchSpace) -> None:
    problem = _problem(space, "tests.search.test_rehearsal.FailingSampler")
    assert problem.startswith("--study.sampler: FailingSampler cannot be used in this study: KeyError: ")
    assert "\n" not in problem


@pytest.mark.parametrize(
    "arguments",
    [
        ("RandomSampler",),
        ("TPESampler",),
        ("QMCSampler",),
        ("NSGAIISampler", "--study.sampler.population_size", "4"),
        ("GridSampler", "--study.sampler.search_space", "{model.hidden: [2, 4], model.lr: [0.1, 0.2]}"),
    ],
)
def test_working_sampler_is_accepted_and_the_study_is_not_changed(
    space: SearchSpace, study: optuna.Study, arguments: tuple[str, ...]
) -> None:
    for number in range(2):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, float(number))
    _rehearse(space, *arguments, stored=study)
    assert len(study.trials) == 2


def test_default_sampler_needs_no_rehearsal(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(optuna, "create_study")
    rehearse_sampler(None, 17, space, "maximize")
