"""Specification of a study: the rule for the split that it keeps."""

from typing import Any

import optuna
import pytest

from lightning_hpo.config.flags import flags
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.spec import StudySpec


def _spec(**arguments: Any) -> StudySpec:
    data = {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {"posts": "posts.csv", **arguments}}
    return StudySpec({"data": data}, {}, StudySettings(name="first"))


def _rule(spec: StudySpec, url: str) -> Any:
    return flags(spec.with_split_of(StudyDatabase(DatabaseUrl(url, "--storage"))).config).get("data.split_rule")


@pytest.mark.usefixtures("study")
def test_new_study_has_the_rule_of_its_config(storage_url: str) -> None:
    assert _rule(_spec(split_rule="stratified"), storage_url) == "stratified"
    assert _rule(_spec(split_rule="stratified"), storage_url.replace("optuna.db", "none.db")) == "stratified"


def test_study_of_the_previous_version_keeps_its_rule(study: optuna.Study, storage_url: str) -> None:
    study.set_user_attr("agent", "criteria")
    assert _rule(_spec(split_rule="stratified"), storage_url) == "hash"
    assert _rule(_spec(), storage_url) is None  # another data module has no such flag


@pytest.mark.parametrize("stored", ["stratified", "hash"])
def test_study_of_this_version_is_left_to_the_comparison_of_fingerprints(
    study: optuna.Study, storage_url: str, stored: str
) -> None:
    study.set_user_attr("agent", "criteria")
    study.set_user_attr("split_rule", stored)
    assert _rule(_spec(split_rule="stratified"), storage_url) == "stratified"
