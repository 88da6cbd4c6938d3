from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.dimension import Suggesting
from lightning_hpo.search.samplers import build_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.optuna_private import pause_trial
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.recorder import record_outcome
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import Outcome, OutcomeKind
from tests.study_sandbox import study_flags

Opened = Callable[..., optuna.Study]


def _create(storage_url: str, name: str, sampler: BaseSampler) -> optuna.Study:
    settings = StudySettings(name=name, storage=storage_url)
    return StudyDatabase(settings.storage_url).create(settings, sampler, NopPruner())


@pytest.fixture
def opened(storage_url: str) -> Opened:
    """Return a function that opens a study, as a new process does."""

    def open_study(name: str, sampler: Any = None, seed: int = 17) -> optuna.Study:
        return _create(storage_url, name, build_sampler(sampler, seed, SPACE))

    return open_study


class _Space:
    """A space with a conditional parameter, whose names are no flags."""

    def suggest(self, trial: Suggesting) -> None:
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        trial.suggest_int("layers", 1, 4)
        if trial.suggest_categorical("augment", [True, False]):
            trial.suggest_float("p", 0.05, 0.3, step=0.05)

    def points(self, grid: Mapping[str, Sequence[Any]] | None = None) -> Iterator[dict[str, Any]] | None:
        del grid
        return None


SPACE = _Space()


def _ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, Any]]:
    trial = study.ask()
    SPACE.suggest(trial)
    return trial, trial.params


def _tell(study: optuna.Study, trial: optuna.Trial) -> None:
    value = -abs(trial.params["lr"] - 0.01) - trial.params.get("p", 0.0)
    trial.report(value, 0)
    if trial.number % 5 == 3:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


def _draw(study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    drawn = []
    for _ in range(trials):
        trial, params = _ask(study)
        drawn.append(params)
        _tell(study, trial)
    return drawn


def test_a_resumed_study_draws_the_same_values_as_an_uninterrupted_one(opened: Opened) -> None:
    whole = _draw(opened("whole"), 20)
    parts = _draw(opened("parts"), 7) + _draw(opened("parts"), 13)
    assert parts == whole
    assert len({params["lr"] for params in whole}) == 20


def test_a_resumed_study_with_a_configured_sampler_draws_the_same_values(opened: Opened) -> None:
    arguments = ["--study.sampler", "TPESampler", "--study.sampler.n_startup_trials", "3"]
    sampler = study_flags(*arguments).sampler
    assert _draw(opened("parts", sampler), 4) + _draw(opened("parts", sampler), 4) == _draw(opened("whole", sampler), 8)


def test_a_paused_trial_does_not_change_the_drawn_values(opened: Opened, tracker: Tracker, tmp_path: Path) -> None:
    whole = _draw(opened("whole"), 14)
    first = opened("parts")
    drawn = _draw(first, 12)
    trial, params = _ask(first)
    record_outcome(first, trial, Outbox(TrialFolder(tmp_path / "trial"), tracker), Outcome(OutcomeKind.INTERRUPTED))
    second = opened("parts")
    again, resumed = _ask(second)
    assert (again.number, resumed) == (12, params)
    _tell(second, again)
    assert [*drawn, resumed, *_draw(second, 1)] == whole


def test_another_seed_draws_other_values(opened: Opened) -> None:
    assert _draw(opened("one", seed=1), 1) != _draw(opened("two", seed=2), 1)


FIRST: list[dict[str, Any]] = [
    {"lr": 0.01, "layers": 9, "augment": True},
    {"lr": "fast", "layers": 2, "augment": False, "p": 0.1},
]


def test_the_first_trials_have_the_given_values_if_they_are_possible(storage_url: str) -> None:
    def open_study(name: str) -> optuna.Study:
        sampler = build_sampler(None, 17, SPACE, FIRST)
        return _create(storage_url, name, sampler)

    whole = _draw(open_study("whole"), 14)
    assert (whole[0]["lr"], whole[0]["augment"]) == (0.01, True)
    assert 1 <= whole[0]["layers"] <= 4  # 9 is outside the range
    assert "p" in whole[0]
    assert (whole[1]["layers"], whole[1]["augment"]) == (2, False)
    assert "p" not in whole[1]
    assert whole[2:4] == _draw(_create(storage_url, "other", build_sampler(None, 17, SPACE)), 4)[2:]
    parts = _draw(open_study("parts"), 1) + _draw(open_study("parts"), 1) + _draw(open_study("parts"), 12)
    assert parts == whole


def _in_memory(name: str, sampler: BaseSampler, storage: InMemoryStorage | None = None) -> optuna.Study:
    return optuna.create_study(study_name=name, sampler=sampler, storage=storage, load_if_exists=True)


def _space(config: dict[str, Any], **searched: Any) -> SearchSpace:
    return SearchSpace(
        {f"model.{name}": entry for name, entry in searched.items()}, AgentCLI(config, instantiate=False).values
    )


def _sampler(*arguments: str) -> Any:
    return study_flags("--study.sampler", *arguments).sampler


def _run(study: optuna.Study, space: SearchSpace, limit: int, state: TrialState = TrialState.COMPLETE) -> list[Any]:
    """Draw as the study loop does, until no new point is left, and return the parameters."""
    sampler: Any = study.sampler
    drawn: list[Any] = []
    while len(drawn) < limit and not sampler.exhausted and sampler.has_new_point(study):
        trial = study.ask()
        space.suggest(trial)
        sampler.remember(trial.number, trial.params)
        drawn.append(trial.params)
        study.tell(trial, float(trial.number) if state == TrialState.COMPLETE else None, state)
    return drawn


HIDDEN = {"choices": [2, 4, 8]}
RATES = {"low": 0.1, "high": 0.7, "step": 0.1}


@pytest.mark.parametrize(
    "arguments",
    [
        ("RandomSampler",),
        ("TPESampler", "--study.sampler.n_startup_trials", "2"),
        ("QMCSampler", "--study.sampler.warn_independent_sampling", "false"),
        ("NSGAIISampler", "--study.sampler.population_size", "3"),
        ("BruteForceSampler",),
        (),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_no_point_of_a_finite_space_is_drawn_twice(foreign_config: dict[str, Any], arguments: tuple[str, ...]) -> None:
    space = _space(foreign_config, hidden=HIDDEN, lr={**RATES, "when": {"model.hidden": [2, 4]}})
    config, memory = _sampler(*arguments) if arguments else None, InMemoryStorage()

    def opened(name: str) -> optuna.Study:
        return _in_memory(name, build_sampler(config, 17, space, space.first_points()), memory)

    whole = _run(opened("whole"), space, 100)
    assert whole[0] == {"model.hidden": 4, "model.lr": 0.1}
    assert len(whole) == 2 * 7 + 1
    assert len({str(sorted(params.items())) for params in whole}) == len(whole)
    parts = _run(opened("parts"), space, 3) + _run(opened("parts"), space, 5) + _run(opened("parts"), space, 100)
    assert parts == whole


def test_points_of_failed_and_paused_trials_are_not_drawn_again(
    storage_url: str, foreign_config: dict[str, Any]
) -> None:
    space = _space(foreign_config, hidden=HIDDEN)
    study = _create(storage_url, "first", build_sampler(None, 17, space))
    [failed] = _run(study, space, 1, TrialState.FAIL)
    paused = study.ask()
    space.suggest(paused)
    pause_trial(study, paused)
    again = _create(storage_url, "first", build_sampler(None, 17, space))
    assert again.ask().number == paused.number  # it has its values already
    [last] = _run(again, space, 5)
    assert sorted(point["model.hidden"] for point in (failed, paused.params, last)) == [2, 4, 8]


def test_a_finite_branch_of_an_infinite_space_is_left_when_it_is_known(
    foreign_config: dict[str, Any],
) -> None:
    space = _space(
        foreign_config, hidden={"choices": [2, 4]}, lr={"low": 0.1, "high": 0.7, "when": {"model.hidden": 2}}
    )
    study = _in_memory("first", build_sampler(None, 17, space))
    drawn = _run(study, space, 25)
    assert [params["model.hidden"] for params in drawn].count(4) == 1
    assert len({params["model.lr"] for params in drawn if "model.lr" in params}) == 24


def test_a_space_without_flags_has_one_point(foreign_config: dict[str, Any]) -> None:
    space = _space(foreign_config)
    assert _run(_in_memory("first", build_sampler(None, 17, space)), space, 5) == [{}]


@pytest.mark.parametrize(("default", "expected"), [(4, [2, 4, 8]), (5, [2, 4, 5, 8])])
def test_a_grid_sampler_draws_its_whole_grid_after_the_first_trials(
    foreign_config: dict[str, Any], default: int, expected: list[int]
) -> None:
    space = _space(foreign_config, hidden={"low": 2, "high": 16})
    grid = _sampler("GridSampler", "--study.sampler.search_space", "{model.hidden: [2, 4, 8]}")
    study = _in_memory("grid", build_sampler(grid, 17, space, [{"model.hidden": default}]))
    drawn = [params["model.hidden"] for params in _run(study, space, 100)]
    assert drawn[0] == default
    assert sorted(drawn) == expected


class BrokenSampler(RandomSampler):
    """Raises an exception of a library in its fourth trial."""

    def sample_independent(self, study: optuna.Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if trial.number == 3:
            raise np.linalg.LinAlgError("not positive definite")
        return super().sample_independent(study, trial, param_name, param_distribution)


def test_exception_of_a_sampler_within_a_study_names_the_flag(foreign_config: dict[str, Any]) -> None:
    space = _space(foreign_config, lr={"low": 0.1, "high": 0.7})
    study = _in_memory("first", build_sampler(_sampler("tests.search.test_samplers.BrokenSampler"), 17, space))
    _run(study, space, 3)
    with pytest.raises(InputError, match=r"^--study.sampler: BrokenSampler cannot be used in this study: LinAlgError"):
        space.suggest(study.ask())
