"""Flags of the augmentation."""

from dataclasses import dataclass, field

import numpy as np

from lightning_hpo.data.augmentation.methods import METHODS, unknown_methods
from lightning_hpo.exceptions import InputError

__all__ = ["Augmentation"]

# If this many augmented samples are expected, the probability of none is about 2e-9.
_CERTAIN = 20


@dataclass
class Augmentation:
    """Random changes of words in training samples; validation and test samples are never changed.

    A change is either inside the evidence or outside, never across its border. At least one word of the evidence stays.

    Args:
        enabled: Whether to augment training samples.
        methods: Ways to change words. Choices: swap (exchange two neighbouring words), delete, split (insert a space
            into a word), keyboard (replace a letter by one of a neighbouring key), ocr (replace a letter by one that
            looks similar), synonyms (from WordNet; needs the extra `augment`).
        p_apply: Probability that a sample is augmented, 0 to 1.
        operations: Number of methods applied to an augmented sample, one after another, 1 to 10.
        max_share: Largest share of a sample's words that all operations together change, above 0 and below 1.
            A sample too short for a single change within this share still gets one.
    """

    enabled: bool = False
    methods: list[str] = field(default_factory=lambda: ["swap", "delete"])
    p_apply: float = 0.15
    operations: int = 1
    max_share: float = 0.2

    def __post_init__(self) -> None:
        problems = unknown_methods(self.methods)
        if not self.methods:
            problems.append(f"--aug.methods: got an empty list; choose from {', '.join(METHODS)}")
        if len(set(self.methods)) < len(self.methods):
            problems.append(f"--aug.methods: got {', '.join(self.methods)}; name each once")
        if not 0 <= self.p_apply <= 1:
            problems.append(f"--aug.p_apply: {self.p_apply} is not a probability; use a value from 0 to 1")
        if not 1 <= self.operations <= 10:
            problems.append(f"--aug.operations: got {self.operations}; it must be from 1 to 10")
        if not 0 < self.max_share < 1:
            problems.append(f"--aug.max_share: got {self.max_share}; use a value above 0 and below 1")
        if problems:
            raise InputError(problems)

    def applies(self, generator: np.random.Generator) -> bool:
        """Draw whether a sample is augmented."""
        return self.enabled and generator.random() < self.p_apply

    def require_effect(self, augmented: float, samples: float) -> None:
        """Check that augmentation changed at least one sample of an epoch.

        Args:
            augmented: Share of the epoch's samples that were changed.
            samples: Number of samples in the epoch.

        Raises:
            InputError: No sample was changed, although so many were expected that this is not chance.
        """
        if self.enabled and not augmented and samples * self.p_apply >= _CERTAIN:
            raise InputError(
                f"--aug.methods: {', '.join(self.methods)} changed none of the {samples:.0f} samples of the epoch with"
                f" --aug.p_apply {self.p_apply}; choose other methods, or set --aug.enabled to false"
            )
