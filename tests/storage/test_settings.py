from pathlib import Path

import pytest

from lightning_hpo.storage.settings import StudySettings


def test_every_problem_is_reported_at_once() -> None:
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
        trial_timeout=30.0,
        storage_wait=-1.0,
    )
    flags = (
        *("name", "n_trials", "workers", "per_device", "keep", "max_failures"),
        *("devices", "checkpoint_minutes", "timeout", "trial_timeout", "storage_wait"),
    )
    assert [line.split(":")[0] for line in settings.problems()] == [f"--study.{flag}" for flag in flags]
    assert StudySettings().problems() == [
        "--study.name: required; give the study a name, such as --study.name first-search"
    ]
    assert StudySettings(name="first-search_1.0").problems() == []


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "a/b", "x" * 101, "é"])
def test_name_that_is_not_a_good_folder_name_is_refused(name: str) -> None:
    assert len(StudySettings(name=name).problems()) == 1


def test_environment_names_the_databases_that_no_flag_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///a.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    assert (StudySettings().storage, StudySettings().tracking_uri) == ("sqlite:///a.db", "http://b")
    assert StudySettings(storage="sqlite:///c.db").storage == "sqlite:///c.db"
    assert StudySettings(storage="sqlite:////c.db").storage_url.path == Path("/c.db")


def test_folder_and_direction_follow_from_the_settings(tmp_path: Path) -> None:
    settings = StudySettings(name="first", outdir=str(tmp_path), mode="min")
    assert (settings.folder, settings.objective.direction) == (tmp_path / "first", "minimize")
    assert StudySettings(mode="max").objective.direction == "maximize"
