from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.trial import TrialState

from lightning_hpo.config import AgentCLI
from lightning_hpo.endings import Ending, Outcome, conclude
from lightning_hpo.exceptions import InputError
from lightning_hpo.journal import Journal
from lightning_hpo.study import (
    StudySettings,
    build_pruner,
    build_sampler,
    check_pruner,
    create_study,
    find_study,
    load_study,
    open_storage,
)
from lightning_hpo.tracking import Tracker

Opened = Callable[..., optuna.Study]


@pytest.fixture
def opened(storage_url: str) -> Opened:
    """Opens the study, as a new process would."""

    def open_study(name: str, sampler: Any = None, seed: int = 17) -> optuna.Study:
        return create_study(
            StudySettings(name=name, storage=storage_url), build_sampler(sampler, seed), build_pruner(None, 3)
        )

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


def test_an_interrupted_study_draws_what_an_uninterrupted_one_draws(opened: Opened) -> None:
    whole = _draw(opened("whole"), 20)
    parts = _draw(opened("parts"), 7) + _draw(opened("parts"), 13)
    assert parts == whole
    assert len({params["lr"] for params in whole}) == 20


def test_a_configured_sampler_goes_on_likewise(opened: Opened) -> None:
    arguments = ["--study.sampler", "TPESampler", "--study.sampler.n_startup_trials", "3"]
    sampler = _study_flags(*arguments).sampler
    assert _draw(opened("parts", sampler), 4) + _draw(opened("parts", sampler), 4) == _draw(opened("whole", sampler), 8)


def test_a_parked_trial_changes_nothing_of_what_is_drawn(opened: Opened, tracker: Tracker, tmp_path: Path) -> None:
    whole = _draw(opened("whole"), 14)
    first = opened("parts")
    drawn = _draw(first, 12)
    trial, params = _ask(first)
    conclude(first, trial, Journal(tmp_path / "trial", tracker), Outcome(Ending.INTERRUPTED))
    second = opened("parts")
    again, resumed = _ask(second)
    assert (again.number, resumed) == (12, params)
    _tell(second, again)
    assert [*drawn, resumed, *_draw(second, 1)] == whole


def test_another_seed_draws_otherwise(opened: Opened) -> None:
    assert _draw(opened("one", seed=1), 1) != _draw(opened("two", seed=2), 1)


def _study_flags(*arguments: str) -> Any:
    config = ["--model", "tests.foreign.ForeignModule", "--data", "tests.foreign.ForeignData"]
    return AgentCLI([*config, *arguments], instantiate=False, study=StudySettings).config.study


@pytest.mark.parametrize("epochs", range(1, 21))
def test_the_default_pruner_can_prune_a_trial_of_any_length(epochs: int) -> None:
    check_pruner(build_pruner(None, epochs), reports=epochs)


@pytest.mark.parametrize("epochs", [-1, 0, 1])
def test_the_default_pruner_is_made_for_any_number_of_epochs(epochs: int) -> None:
    assert isinstance(build_pruner(None, epochs), MedianPruner)


def _patient(patience: int) -> BasePruner:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        return PatientPruner(MedianPruner(), patience)


@pytest.mark.parametrize(
    ("make", "reports"),
    [
        (lambda: _patient(3), 4),
        (lambda: MedianPruner(n_warmup_steps=5), 5),
        (lambda: PercentilePruner(25.0, n_warmup_steps=9), 3),
        (lambda: SuccessiveHalvingPruner(min_resource=8), 6),
        (lambda: HyperbandPruner(min_resource=9, max_resource=27), 5),
    ],
)
def test_a_pruner_that_comes_too_late_is_refused(make: Callable[[], BasePruner], reports: int) -> None:
    pruner = make()
    with pytest.raises(InputError, match=rf"^--study.pruner: {type(pruner).__name__} can never prune .* {reports} epo"):
        check_pruner(pruner, reports=reports)


@pytest.mark.parametrize(
    ("make", "reports"),
    [
        (lambda: _patient(3), 5),
        (lambda: MedianPruner(n_warmup_steps=5), 6),
        (lambda: PercentilePruner(25.0), 1),
        (lambda: SuccessiveHalvingPruner(), 2),
        (lambda: SuccessiveHalvingPruner(min_resource=3), 4),
        (lambda: HyperbandPruner(max_resource=9), 10),
        (lambda: ThresholdPruner(lower=0.0), 1),
        (lambda: ThresholdPruner(lower=-1000.0), 5),
        (lambda: ThresholdPruner(upper=1000.0), 5),
        (lambda: NopPruner(), 5),
    ],
)
def test_a_pruner_that_can_prune_passes(make: Callable[[], BasePruner], reports: int) -> None:
    check_pruner(make(), reports=reports)


def test_the_rehearsal_leaves_optuna_s_voice_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    check_pruner(MedianPruner(), reports=3)
    assert optuna.logging.get_verbosity() == before


def test_a_configured_pruner_is_made() -> None:
    flags = ["--study.pruner", "PercentilePruner", "--study.pruner.percentile", "20"]
    pruner = build_pruner(_study_flags(*flags).pruner, 5)
    assert isinstance(pruner, PercentilePruner)
    assert isinstance(build_pruner(_study_flags("--study.pruner", "NopPruner").pruner, 5), NopPruner)


def test_a_pruner_that_refuses_its_arguments_is_one_line() -> None:
    flags = ["--study.pruner", "PercentilePruner", "--study.pruner.percentile", "200"]
    with pytest.raises(InputError) as caught:
        build_pruner(_study_flags(*flags).pruner, 5)
    [line] = caught.value.problems
    assert line.startswith("--study.pruner: PercentilePruner refused its arguments: ")
    assert "Percentile must be between 0 and 100" in line


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
    _draw(opened("first"), 2)
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
    study = create_study(settings, build_sampler(None, 1), NopPruner())
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
