"""Data of the agents: corpora in ReDSM5's format, splits, windows, batches and augmentation."""

from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.data.criteria_data_module import CriteriaDataModule
from lightning_hpo.data.evidence_data_module import EvidenceDataModule
from lightning_hpo.data.pair_data_module import PairDataModule

__all__ = ["Augmentation", "CriteriaDataModule", "EvidenceDataModule", "PairDataModule"]
