from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler

from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import create_study, find_study, load_study, open_storage

Opened = Callable[..., optuna.Study]


@pytest.fixture
def opened(storage_url: str) -> Opened:
    """Opens the study, as a new process would."""

    def open_study(name: str) -> optuna.Study:
        return create_study(StudySettings(name=name, storage=storage_url), RandomSampler(), NopPruner())

    return open_study


def test_settings_that_cannot_be_used_are_told_at_once() -> None:
    settings = StudySettings(
        name="a/b",
        n_trials=0,
        workers=0,
        per_device=0,
        devices=[1, 1],
        keep=-1,
        max_failures=0,
        checkpoint_minutes=0.0,
        timeout=0.0,
        storage_wait=-1.0,
    )
    flags = (
        *("name", "n_trials", "workers", "per_device", "keep", "max_failures"),
        *("devices", "checkpoint_minutes", "timeout", "storage_wait"),
    )
    assert [line.split(":")[0] for line in settings.problems()] == [f"--study.{flag}" for flag in flags]
    assert StudySettings().problems() == [
        "--study.name: needed; give the study a name, such as --study.name first-search"
    ]
    assert StudySettings(name="first-search_1.0").problems() == []


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "a/b", "x" * 101, "é"])
def test_a_name_that_makes_no_good_folder_is_refused(name: str) -> None:
    assert len(StudySettings(name=name).problems()) == 1


def test_settings_follow_the_environment_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///a.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    assert (StudySettings().storage, StudySettings().tracking_uri) == ("sqlite:///a.db", "http://b")
    assert StudySettings(storage="sqlite:///c.db").storage == "sqlite:///c.db"


def test_settings_in_optuna_s_words(tmp_path: Path) -> None:
    settings = StudySettings(name="first", outdir=str(tmp_path), mode="min")
    assert (settings.folder, settings.direction) == (tmp_path / "first", "minimize")
    assert StudySettings(mode="max").direction == "maximize"


def test_a_storage_that_is_not_there_is_not_made_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(InputError, match=rf"there is no database {path}; tune a study first, or name another"):
        open_storage(f"sqlite:///{path}", create=False)
    assert not path.exists()


def test_a_storage_is_made_with_its_folder(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path}/_optuna/dataaug.db")
    assert (tmp_path / "_optuna" / "dataaug.db").is_file()


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:secret@localhost/db", "nosuch://me:secret@host/db", "nothing of the kind"],
)
def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        open_storage(url)
    [line] = caught.value.problems
    assert "\n" not in line
    assert "secret" not in line


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database" * 99)
    with pytest.raises(InputError, match=r"--study.storage: cannot open sqlite:///.*text.db: file is not a database"):
        open_storage(f"sqlite:///{path}")


def test_a_study_is_found_again(opened: Opened, storage_url: str) -> None:
    settings = StudySettings(name="first", storage=storage_url)
    assert find_study(settings) is None
    study = opened("first")
    for _ in range(2):
        study.tell(study.ask(), 0.5)
    found = find_study(settings)
    assert found is not None
    assert len(found.trials) == len(load_study("first", storage_url).trials) == 2


def test_looking_for_a_study_makes_no_database(tmp_path: Path) -> None:
    assert find_study(StudySettings(name="first", storage=f"sqlite:///{tmp_path}/none.db")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_not_there_is_refused_with_those_that_are(opened: Opened, storage_url: str) -> None:
    with pytest.raises(InputError, match=r"no such study in sqlite:.*; there are: none$"):
        load_study("first", storage_url)
    opened("one")
    opened("two")
    with pytest.raises(InputError, match=r"--study first: no such study in sqlite:.*; there are: one, two$"):
        load_study("first", storage_url)


def test_a_study_has_the_direction_of_its_mode(storage_url: str) -> None:
    settings = StudySettings(name="first", storage=storage_url, mode="min")
    study = create_study(settings, RandomSampler(), NopPruner())
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
