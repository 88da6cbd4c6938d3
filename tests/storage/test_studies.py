import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage import studies
from lightning_hpo.storage.connection import open_storage
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase, ranked, require_tuned

Opened = Callable[..., optuna.Study]


def _create(settings: StudySettings) -> optuna.Study:
    return StudyDatabase(settings.storage_url).create(settings, RandomSampler(), NopPruner())


@pytest.fixture
def opened(storage_url: str) -> Opened:
    """Open the study as a new process would."""

    def open_study(name: str) -> optuna.Study:
        return _create(StudySettings(name=name, storage=storage_url))

    return open_study


@pytest.fixture
def url(storage_url: str) -> DatabaseUrl:
    return DatabaseUrl(storage_url, "--storage")


def test_study_is_found_again(opened: Opened, url: DatabaseUrl) -> None:
    assert StudyDatabase(url).find("first") is None
    study = opened("first")
    for _ in range(2):
        study.tell(study.ask(), 0.5)
    database = StudyDatabase(url)
    found = database.find("first")
    assert found is not None
    assert len(found.trials) == len(database.load("first").trials) == 2


def test_finding_a_study_creates_no_database(tmp_path: Path) -> None:
    assert StudyDatabase(DatabaseUrl(f"sqlite:///{tmp_path}/none.db", "--storage")).find("first") is None
    assert list(tmp_path.iterdir()) == []


def test_missing_study_is_refused_with_the_names_of_the_others(opened: Opened, url: DatabaseUrl) -> None:
    with pytest.raises(InputError, match=r"no such study in sqlite:.*; there are: none$"):
        StudyDatabase(url).load("first")
    opened("one")
    opened("two")
    with pytest.raises(InputError, match=r"--study first: no such study in sqlite:.*; there are: one, two$"):
        StudyDatabase(url).load("first")


def test_names_of_all_studies_are_listed(opened: Opened, url: DatabaseUrl) -> None:
    opened("one")
    opened("two")
    assert StudyDatabase(url).names() == ["one", "two"]


def test_database_is_opened_once(storage_url: str, url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(url: DatabaseUrl, **options: Any) -> RDBStorage:
        opened.append(url.url)
        return open_storage(url, **options)

    monkeypatch.setattr(studies, "open_storage", counted)
    database = StudyDatabase(url, wait_s=1.0)
    assert database.find("first") is None
    database.create(StudySettings(name="first", storage=storage_url), RandomSampler(), NopPruner())
    assert database.load("first").study_name == "first"
    assert opened == [storage_url]


def test_direction_of_a_study_follows_its_mode(storage_url: str) -> None:
    settings = StudySettings(name="first", storage=storage_url, mode="min")
    study = _create(settings)
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


def test_database_of_plain_optuna_gets_write_ahead_logging(tmp_path: Path) -> None:
    url = DatabaseUrl(f"sqlite:///{tmp_path}/plain.db", "--study.storage")
    optuna.create_study(study_name="old", storage=url.url)
    database = StudyDatabase(url, wait_s=1.0)
    assert database.find("first") is None
    database.create(StudySettings(name="first", storage=url.url), RandomSampler(), NopPruner())
    with contextlib.closing(sqlite3.connect(tmp_path / "plain.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(("direction", "mode", "fits"), [("minimize", "max", False), ("minimize", "min", True)])
def test_study_whose_direction_is_not_its_mode_is_refused(direction: Any, mode: str, fits: bool) -> None:
    study = optuna.create_study(study_name="first", direction=direction)
    for key, value in {"agent": "criteria", "mode": mode}.items():
        study.set_user_attr(key, value)
    if fits:
        require_tuned(study, "models")
        return
    with pytest.raises(InputError, match=r"^first: the study was created to minimize its metric, but tuned with "):
        require_tuned(study, "models")
