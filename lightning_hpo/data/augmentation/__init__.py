"""Changes words of training windows without losing the evidence."""

from lightning_hpo.data.augmentation.augmentation import Augmentation
from lightning_hpo.data.augmentation.augmenter import Augmenter

__all__ = ["Augmentation", "Augmenter"]
