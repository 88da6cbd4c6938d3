"""Flags of the augmentation."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from lightning_hpo.data.augmentation.methods import METHODS, unknown_methods
from lightning_hpo.exceptions import InputError, raise_problems
from lightning_hpo.flag_types import Bounds, type_problems

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
            into a word), keyboard (replace a letter with that of a neighbouring key), ocr (replace a letter with one
            that looks similar), synonyms (from WordNet; needs the extra `augment`).
        p_apply: Probability that a sample is augmented.
        operations: Number of methods applied to an augmented sample, one after another.
        max_share: Maximum share of a sample's words that may be changed, over all operations. In a very short sample,
            one change is allowed even if it exceeds this share.
    """

    enabled: bool = False
    methods: list[str] = field(default_factory=lambda: ["swap", "delete"])
    p_apply: Annotated[float, Bounds(0, 1)] = 0.15
    operations: Annotated[int, Bounds(1, 10)] = 1
    max_share: Annotated[float, Bounds(0, 1, exclusive=True)] = 0.2

    def __post_init__(self) -> None:
        problems = unknown_methods(self.methods)
        if not self.methods:
            problems.append(f"--aug.methods: got an empty list; choose from {', '.join(METHODS)}")
        if len(set(self.methods)) < len(self.methods):
            problems.append(f"--aug.methods: got {', '.join(self.methods)}; name each once")
        problems += type_problems("--aug", type(self), vars(self))
        raise_problems(problems)

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
