"""The public API: what each package exports."""

import importlib

import pytest

PUBLIC = {
    "lightning_hpo": {
        "CriteriaAgent",
        "CriteriaDataModule",
        "EvidenceAgent",
        "EvidenceDataModule",
        "InputError",
        "JointAgent",
        "JointDataModule",
        "LightningHpoError",
        "MLflowModelCheckpoint",
        "PruningCallback",
        "StudyCallback",
        "StudySettings",
        "StudySpec",
        "__version__",
    },
    "lightning_hpo.data": {
        "Augmentation",
        "CriteriaDataModule",
        "EvidenceDataModule",
        "JointDataModule",
        "PairDataModule",
    },
}


@pytest.mark.parametrize("package", PUBLIC)
def test_package_exports_its_public_names(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package]
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("name", ["CriteriaAgent", "EvidenceAgent"])
def test_class_paths_of_old_configs_work(name: str) -> None:
    assert getattr(importlib.import_module("lightning_hpo.agents"), name).__name__ == name
    data = name.replace("Agent", "DataModule")
    assert getattr(importlib.import_module("lightning_hpo.data"), data).__name__ == data


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Criteria'"):
        importlib.import_module("lightning_hpo").Criteria  # noqa: B018
