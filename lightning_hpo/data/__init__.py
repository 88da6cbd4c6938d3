"""Data of the agents: corpora in ReDSM5's format, splits, windows, batches and augmentation.

A class is imported at its first use, because `status` reads sizes of splits without Lightning and transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_hpo.data.augmentation import Augmentation as Augmentation
    from lightning_hpo.data.criteria_data_module import CriteriaDataModule as CriteriaDataModule
    from lightning_hpo.data.evidence_data_module import EvidenceDataModule as EvidenceDataModule
    from lightning_hpo.data.joint_data_module import JointDataModule as JointDataModule
    from lightning_hpo.data.pair_data_module import PairDataModule as PairDataModule

_MODULES = {
    "Augmentation": "augmentation",
    "CriteriaDataModule": "criteria_data_module",
    "EvidenceDataModule": "evidence_data_module",
    "JointDataModule": "joint_data_module",
    "PairDataModule": "pair_data_module",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a class at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the classes besides the names of the module."""
    return sorted({*globals(), *__all__})
