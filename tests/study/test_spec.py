"""Mode of the metric of a study, how many validations its trials have, and the rule for the split that it keeps."""

from typing import Any

import optuna
import pytest

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent, JointAgent
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import flags
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.spec import StudySpec
from tests.foreign import ForeignModule


class DeclaringModule(ForeignModule):
    MINIMIZED = ("val_error",)


def _spec(config: dict[str, Any], settings: dict[str, Any], **trainer: Any) -> StudySpec:
    config = {**config, "trainer": {**config["trainer"], **trainer}}
    return StudySpec(AgentCLI(config, instantiate=False).values, {}, StudySettings(name="first", **settings))


@pytest.fixture
def declaring_config(foreign_config: dict[str, Any]) -> dict[str, Any]:
    return {**foreign_config, "model": {"class_path": "tests.study.test_spec.DeclaringModule"}}


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "max"),
        ({"monitor": "val_loss"}, "min"),
        ({"monitor": "val_loss", "mode": "min"}, "min"),
        ({"monitor": "val_error", "mode": "min"}, "min"),
        ({"monitor": "val_error", "mode": "max"}, "max"),
    ],
)
def test_mode_follows_the_metric(foreign_config: dict[str, Any], settings: dict[str, Any], mode: str) -> None:
    assert _spec(foreign_config, settings).with_mode(None).settings.mode == mode


@pytest.mark.parametrize(("monitor", "mode"), [("val_error", "min"), ("val_accuracy", "max"), ("val_loss", "max")])
def test_mode_follows_what_the_model_declares(declaring_config: dict[str, Any], monitor: str, mode: str) -> None:
    assert _spec(declaring_config, {"monitor": monitor}).with_mode(None).settings.mode == mode


@pytest.mark.parametrize("agent", [CriteriaAgent, EvidenceAgent, JointAgent])
def test_losses_of_both_agents_are_minimized(agent: type) -> None:
    config = {"model": {"class_path": f"lightning_hpo.agents.{agent.__name__}"}, "trainer": {}}
    spec = StudySpec(config, {}, StudySettings(name="first"))
    assert (spec.mode_of("val_loss"), spec.mode_of("val_metric"), spec.mode_of("val_f1")) == ("min", "max", "max")


def test_mode_that_contradicts_the_metric_is_refused(foreign_config: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"^--study.mode: got max, but a lower val_loss is better; use min, or omit it$"
    ):
        _spec(foreign_config, {"monitor": "val_loss", "mode": "max"}).with_mode(None)
    with pytest.raises(InputError, match=r"^--study.mode: got min, but a higher val_metric is better; use max, or"):
        _spec(foreign_config, {"mode": "min"}).with_mode(None)


def test_mode_that_nothing_tells_is_required(foreign_config: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"^--study.mode: required, since ForeignModule does not declare whether a higher"
    ):
        _spec(foreign_config, {"monitor": "val_perplexity"}).with_mode(None)


def test_stored_study_tells_the_mode_of_its_own_metric(foreign_config: dict[str, Any]) -> None:
    stored = optuna.create_study(direction="minimize")
    stored.set_user_attr("monitor", "val_error")
    assert _spec(foreign_config, {"monitor": "val_error"}).with_mode(stored).settings.mode == "min"
    with pytest.raises(InputError, match=r"^--study.mode: required"):
        _spec(foreign_config, {"monitor": "val_perplexity"}).with_mode(stored)


EARLY, BEST = "lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.callbacks.ModelCheckpoint"


@pytest.mark.parametrize(
    ("settings", "callbacks", "lines"),
    [
        (
            {},
            [{"class_path": EARLY, "init_args": {"monitor": "val_metric"}}],
            ["EarlyStopping has the mode min, but a higher"],
        ),
        ({}, [{"class_path": EARLY, "init_args": {"monitor": "val_metric", "mode": "max"}}], []),
        ({}, [{"class_path": EARLY, "init_args": {"monitor": "val_loss"}}], []),
        ({}, [{"class_path": EARLY, "init_args": {"monitor": "val_error", "mode": "max"}}], []),
        (
            {},
            [{"class_path": BEST, "init_args": {"monitor": "val_loss", "mode": "max"}}],
            ["ModelCheckpoint has the mode max"],
        ),
        ({}, [{"class_path": BEST, "init_args": {"filename": "all"}}], []),
        (
            {"monitor": "val_error", "mode": "min"},
            [{"class_path": EARLY, "init_args": {"monitor": "val_error", "mode": "max"}}],
            ["EarlyStopping has the mode max, but a lower val_error is better; use mode: min"],
        ),
    ],
)
def test_callback_whose_mode_contradicts_its_metric_is_refused(
    foreign_config: dict[str, Any], settings: dict[str, Any], callbacks: list[dict[str, Any]], lines: list[str]
) -> None:
    problems = _spec(foreign_config, settings, callbacks=callbacks).with_mode(None).callback_problems()
    assert len(problems) == len(lines)
    for problem, line in zip(problems, lines, strict=True):
        assert problem.startswith("--trainer.callbacks: ")
        assert line in problem


@pytest.mark.parametrize(
    ("trainer", "reports", "known"),
    [
        ({"max_epochs": 4}, 4, True),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, 2, True),
        ({"max_epochs": 4, "val_check_interval": 0.5}, 8, True),
        ({"max_epochs": 4, "val_check_interval": 0.1}, 40, True),
        ({"max_epochs": 4, "val_check_interval": 100}, 4, False),
        ({"max_epochs": -1}, 100, False),
    ],
)
def test_number_of_reports(foreign_config: dict[str, Any], trainer: dict[str, Any], reports: int, known: bool) -> None:
    spec = _spec(foreign_config, {}, **trainer)
    assert (spec.reports, spec.known_reports) == (reports, reports if known else None)


def _with_data(**arguments: Any) -> StudySpec:
    data = {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {"posts": "posts.csv", **arguments}}
    return StudySpec({"data": data}, {}, StudySettings(name="first"))


def _rule(spec: StudySpec, url: str) -> Any:
    stored = StudyDatabase(DatabaseUrl(url, "--storage")).find("first")
    return flags(spec.with_split_of(stored).config).get("data.split_rule")


@pytest.mark.usefixtures("study")
def test_new_study_has_the_rule_of_its_config(storage_url: str) -> None:
    assert _rule(_with_data(split_rule="stratified"), storage_url) == "stratified"
    assert _rule(_with_data(split_rule="stratified"), storage_url.replace("optuna.db", "none.db")) == "stratified"


def test_study_of_the_previous_version_keeps_its_rule(study: optuna.Study, storage_url: str) -> None:
    study.set_user_attr("agent", "criteria")
    assert _rule(_with_data(split_rule="stratified"), storage_url) == "hash"
    assert _rule(_with_data(), storage_url) is None  # another data module has no such flag


@pytest.mark.parametrize("stored", ["stratified", "hash"])
def test_study_of_this_version_is_left_to_the_comparison_of_fingerprints(
    study: optuna.Study, storage_url: str, stored: str
) -> None:
    study.set_user_attr("agent", "criteria")
    study.set_user_attr("split_rule", stored)
    assert _rule(_with_data(split_rule="stratified"), storage_url) == "stratified"
