from collections.abc import Callable
from pathlib import Path
from typing import Literal

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import create_study, find_study, load_studies, load_study, ranked

Opened = Callable[..., optuna.Study]


@pytest.fixture
def opened(storage_url: str) -> Opened:
    """Open the study as a new process would."""

    def open_study(name: str) -> optuna.Study:
        return create_study(StudySettings(name=name, storage=storage_url), RandomSampler(), NopPruner())

    return open_study


@pytest.fixture
def url(storage_url: str) -> DatabaseUrl:
    return DatabaseUrl(storage_url, "--storage")


def test_study_is_found_again(opened: Opened, url: DatabaseUrl) -> None:
    settings = StudySettings(name="first", storage=url.url)
    assert find_study(settings) is None
    study = opened("first")
    for _ in range(2):
        study.tell(study.ask(), 0.5)
    found = find_study(settings)
    assert found is not None
    assert len(found.trials) == len(load_study("first", url).trials) == 2


def test_finding_a_study_creates_no_database(tmp_path: Path) -> None:
    assert find_study(StudySettings(name="first", storage=f"sqlite:///{tmp_path}/none.db")) is None
    assert list(tmp_path.iterdir()) == []


def test_missing_study_is_refused_with_the_names_of_the_others(opened: Opened, url: DatabaseUrl) -> None:
    with pytest.raises(InputError, match=r"no such study in sqlite:.*; there are: none$"):
        load_study("first", url)
    opened("one")
    opened("two")
    with pytest.raises(InputError, match=r"--study first: no such study in sqlite:.*; there are: one, two$"):
        load_study("first", url)


def test_all_studies_are_loaded_or_the_named_one(opened: Opened, url: DatabaseUrl) -> None:
    opened("one")
    opened("two")
    assert [study.study_name for study in load_studies(None, url)] == ["one", "two"]
    assert [study.study_name for study in load_studies("two", url)] == ["two"]


def test_direction_of_a_study_follows_its_mode(storage_url: str) -> None:
    settings = StudySettings(name="first", storage=storage_url, mode="min")
    study = create_study(settings, RandomSampler(), NopPruner())
    assert study.direction == optuna.study.StudyDirection.MINIMIZE


@pytest.mark.parametrize(("direction", "numbers"), [("maximize", [1, 2, 0]), ("minimize", [0, 1, 2])])
def test_complete_trials_are_ranked_best_first(
    storage_url: str, direction: Literal["maximize", "minimize"], numbers: list[int]
) -> None:
    study = optuna.create_study(storage=storage_url, direction=direction)
    for value in (0.1, 0.5, 0.5):
        study.tell(study.ask(), value)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    assert [trial.number for trial in ranked(study)] == numbers
