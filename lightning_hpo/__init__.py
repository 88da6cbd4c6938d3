"""Two text agents, fine-tuned with Lightning, searched with Optuna, tracked with MLflow."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_hpo.agents import CriteriaAgent, EvidenceAgent
    from lightning_hpo.callbacks import MLflowModelCheckpoint, PruningCallback
    from lightning_hpo.data import CriteriaDataModule, EvidenceDataModule
    from lightning_hpo.exceptions import InputError, LightningHpoError
    from lightning_hpo.storage.settings import StudySettings
    from lightning_hpo.study.callback import StudyCallback
    from lightning_hpo.study.spec import StudySpec

__all__ = [
    "CriteriaAgent",
    "CriteriaDataModule",
    "EvidenceAgent",
    "EvidenceDataModule",
    "InputError",
    "LightningHpoError",
    "MLflowModelCheckpoint",
    "PruningCallback",
    "StudyCallback",
    "StudySettings",
    "StudySpec",
    "__version__",
]

__version__ = "0.1.0"

_MODULES = {
    "CriteriaAgent": "agents",
    "CriteriaDataModule": "data",
    "EvidenceAgent": "agents",
    "EvidenceDataModule": "data",
    "InputError": "exceptions",
    "LightningHpoError": "exceptions",
    "MLflowModelCheckpoint": "callbacks",
    "PruningCallback": "callbacks",
    "StudyCallback": "study.callback",
    "StudySettings": "storage.settings",
    "StudySpec": "study.spec",
}


def __getattr__(name: str) -> Any:
    """Import a public class at its first use, so that `lightning-hpo --help` imports none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
