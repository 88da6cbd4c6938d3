"""Three text agents, fine-tuned with Lightning, searched with Optuna, tracked with MLflow."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_hpo.agents import CriteriaAgent as CriteriaAgent
    from lightning_hpo.agents import EvidenceAgent as EvidenceAgent
    from lightning_hpo.agents import JointAgent as JointAgent
    from lightning_hpo.callbacks import MLflowModelCheckpoint as MLflowModelCheckpoint
    from lightning_hpo.callbacks import PruningCallback as PruningCallback
    from lightning_hpo.data import CriteriaDataModule as CriteriaDataModule
    from lightning_hpo.data import EvidenceDataModule as EvidenceDataModule
    from lightning_hpo.data import JointDataModule as JointDataModule
    from lightning_hpo.exceptions import InputError as InputError
    from lightning_hpo.exceptions import LightningHpoError as LightningHpoError
    from lightning_hpo.storage.settings import StudySettings as StudySettings
    from lightning_hpo.study.callback import StudyCallback as StudyCallback
    from lightning_hpo.study.spec import StudySpec as StudySpec

__version__ = "0.1.0"

# Before MLflow is imported: it decides at import whether it sends telemetry. Child processes inherit them.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_MODULES = {
    "CriteriaAgent": "agents",
    "CriteriaDataModule": "data",
    "EvidenceAgent": "agents",
    "EvidenceDataModule": "data",
    "InputError": "exceptions",
    "JointAgent": "agents",
    "JointDataModule": "data",
    "LightningHpoError": "exceptions",
    "MLflowModelCheckpoint": "callbacks",
    "PruningCallback": "callbacks",
    "StudyCallback": "study.callback",
    "StudySettings": "storage.settings",
    "StudySpec": "study.spec",
}
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public class at its first use, so that `lightning-hpo --help` imports none of them."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
