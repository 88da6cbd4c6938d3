from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from lightning_hpo.search.samplers import build_sampler
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
        return _create(storage_url, name, build_sampler(sampler, seed))

    return open_study


def _ask(study: optuna.Study) -> tuple[optuna.Trial, dict[str, Any]]:
    trial = study.ask()
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    trial.suggest_int("layers", 1, 4)
    if trial.suggest_categorical("augment", [True, False]):
        trial.suggest_float("p", 0.05, 0.3, step=0.05)
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
        sampler = build_sampler(None, 17, FIRST)
        return _create(storage_url, name, sampler)

    whole = _draw(open_study("whole"), 14)
    assert (whole[0]["lr"], whole[0]["augment"]) == (0.01, True)
    assert 1 <= whole[0]["layers"] <= 4  # 9 is outside the range
    assert "p" in whole[0]
    assert (whole[1]["layers"], whole[1]["augment"]) == (2, False)
    assert "p" not in whole[1]
    assert whole[2:4] == _draw(_create(storage_url, "other", build_sampler(None, 17)), 4)[2:]
    parts = _draw(open_study("parts"), 1) + _draw(open_study("parts"), 1) + _draw(open_study("parts"), 12)
    assert parts == whole


def test_a_grid_sampler_draws_its_whole_grid_after_the_first_trials(storage_url: str) -> None:
    sampler = study_flags("--study.sampler", "GridSampler", "--study.sampler.search_space", "{x: [1, 2, 3]}").sampler
    study = _create(storage_url, "grid", build_sampler(sampler, 17, [{"x": 4}]))
    drawn = []
    while not getattr(study.sampler, "exhausted", False):
        trial = study.ask()
        drawn.append(trial.suggest_int("x", 1, 4))
        study.tell(trial, drawn[-1])
    assert drawn[0] == 4
    assert sorted(drawn[1:]) == [1, 2, 3]
