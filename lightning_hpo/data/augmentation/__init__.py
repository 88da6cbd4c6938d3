"""Augmentation of training windows: changes words but keeps the evidence."""

from lightning_hpo.data.augmentation.augmentation import Augmentation
from lightning_hpo.data.augmentation.augmenter import Augmenter

__all__ = ["Augmentation", "Augmenter"]
