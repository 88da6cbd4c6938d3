"""Checks of a study before anything is written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.checks import check_settings, check_start
from lightning_hpo.study.preflight import Findings
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study.workers import ProcessExit


class PreflightWorkers:
    """Workers whose only process returns what a test has prepared for the preflight."""

    def __init__(self, result: Findings | ProcessExit) -> None:
        self.result = result

    def call(self, target: object, *arguments: object, log: Path) -> Findings | ProcessExit:
        del target, arguments, log
        return self.result


@pytest.fixture
def spec(foreign_config: dict[str, Any], storage_url: str, tracking_uri: str, tmp_path: Path) -> StudySpec:
    settings = StudySettings(
        name="first", storage=storage_url, tracking_uri=tracking_uri, outdir=str(tmp_path / "outputs")
    )
    config = AgentCLI(foreign_config, instantiate=False).values
    return StudySpec(config, {"model.lr": {"low": 0.01, "high": 1.0}}, settings)


def _with_trainer(spec: StudySpec, **trainer: Any) -> StudySpec:
    return replace(spec, config={**spec.config, "trainer": {**spec.config["trainer"], **trainer}})


def _problems(spec: StudySpec) -> list[str]:
    with pytest.raises(InputError) as error:
        check_settings(spec, StudyDatabase(spec.settings.storage_url))
    return error.value.problems


def _start(spec: StudySpec, result: Findings | ProcessExit, *, used_before: bool = True) -> dict[str, Any]:
    checked, space, _ = check_settings(spec, database := StudyDatabase(spec.settings.storage_url))
    return check_start(checked, space, database, PreflightWorkers(result), used_before=used_before)  # type: ignore[arg-type]


def _start_problems(spec: StudySpec, result: Findings, *, used_before: bool = True) -> list[str]:
    with pytest.raises(InputError) as error:
        _start(spec, result, used_before=used_before)
    return error.value.problems


def test_good_settings_give_space_and_pruner(spec: StudySpec) -> None:
    checked, space, pruner = check_settings(spec, StudyDatabase(spec.settings.storage_url))
    assert (checked.agent, list(space.dimensions)) == ("foreignmodule", ["model.lr"])
    assert isinstance(pruner, optuna.pruners.BasePruner)


def test_all_problems_of_settings_are_reported_at_once(spec: StudySpec) -> None:
    bad = _with_trainer(replace(spec, search_space={"model.lrr": {"low": 0.01, "high": 1.0}}), devices=2)
    problems = _problems(replace(bad, settings=replace(spec.settings, name="a/b")))
    assert [problem.split(":")[0] for problem in problems] == ["--study.name", "--trainer.devices", "search_space"]


@pytest.mark.parametrize("devices", [2, "2", [0, 1]])
def test_several_devices_for_a_trial_are_refused(spec: StudySpec, devices: object) -> None:
    [problem] = _problems(_with_trainer(spec, devices=devices))
    assert problem.startswith(f"--trainer.devices: got {devices}; ")


@pytest.mark.parametrize("devices", [1, "1", [0], "auto", -1])
def test_one_device_for_a_trial_is_accepted(spec: StudySpec, devices: object) -> None:
    check_settings(_with_trainer(spec, devices=devices), StudyDatabase(spec.settings.storage_url))


def test_training_without_a_validated_epoch_is_refused(spec: StudySpec) -> None:
    problems = _problems(_with_trainer(spec, max_epochs=1, check_val_every_n_epoch=2))
    assert problems[-1] == "--trainer.max_epochs, --trainer.check_val_every_n_epoch: no epoch is validated"


def test_damaged_database_is_refused(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"no database" * 100)
    [problem] = _problems(replace(spec, settings=replace(spec.settings, storage=f"sqlite:///{tmp_path}/other.db")))
    assert problem.startswith("--study.storage: ")


def test_preflight_gives_the_attributes_of_the_study(spec: StudySpec, tmp_path: Path) -> None:
    sizes = {"val": {"posts": 1, "positives": {"SAD": 1}}}
    findings = Findings(
        fingerprint="f", counts={"posts": 3}, split_sizes=sizes, baselines={"never met": 0.4}, precision="32-true"
    )
    attributes = _start(replace(spec, attributes={"refit_of": "x"}), findings)
    expected: dict[str, Any] = {
        "agent": "foreignmodule",
        "monitor": "val_metric",
        "mode": "max",
        "data_fingerprint": "f",
    }
    expected |= {"precision": "32-true", "outdir": str(tmp_path / "outputs/first"), "refit_of": "x"}
    expected |= {"split_sizes": sizes, "split_rule": None}  # None: not a data module of this package
    assert {key: attributes[key] for key in expected} == expected


def test_problems_of_the_preflight_are_reported(spec: StudySpec) -> None:
    assert _start_problems(spec, Findings(problems=["--data.posts: no such file"])) == ["--data.posts: no such file"]


def test_crash_of_the_preflight_is_one_line(spec: StudySpec) -> None:
    with pytest.raises(LightningHpoError, match=r"killed by SIGSEGV; see .*preflight\.log$"):
        _start(spec, ProcessExit(-11))


def test_other_data_than_required_is_refused(spec: StudySpec) -> None:
    [problem] = _start_problems(replace(spec, data_fingerprint="f"), Findings(fingerprint="g"))
    assert "fingerprint f" in problem
    assert "has g" in problem
    assert _start(replace(spec, data_fingerprint="g"), Findings(fingerprint="g"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agent", "criteria"),
        ("monitor", "val_loss"),
        ("mode", "min"),
        ("data_fingerprint", "g"),
    ],
)
def test_study_with_another_attribute_is_refused(spec: StudySpec, study: optuna.Study, key: str, value: str) -> None:
    attributes = _start(spec, Findings(fingerprint="f"))
    for name, stored in {**attributes, key: value}.items():
        study.set_user_attr(name, stored)
    [problem] = _start_problems(spec, Findings(fingerprint="f"))
    assert problem.startswith(f"--study.name: first was started with {key} {value}, and now it is {attributes[key]}; ")


def test_running_trials_on_another_machine_are_refused(spec: StudySpec, study: optuna.Study) -> None:
    study.ask()
    [problem] = _start_problems(spec, Findings(), used_before=False)
    assert problem.startswith("--study.name: 1 trials of first are running, but this machine has never used ")
    assert _start(spec, Findings(), used_before=True)
