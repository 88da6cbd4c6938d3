"""The flags of the augmentation."""

from dataclasses import dataclass, field

import numpy as np

from lightning_hpo.data.augmentation.methods import METHODS, unknown_methods
from lightning_hpo.exceptions import InputError

__all__ = ["Augmentation"]

# With so many augmented samples expected, none at all happens by chance in one epoch of a hundred million.
_CERTAIN = 20


@dataclass
class Augmentation:
    """Random changes of words in training samples; the scored parts are never changed.

    Words change within the evidence or outside of it, never across its border, and evidence keeps a word.

    Args:
        enabled: Whether to augment at all.
        methods: Ways to change words: swap (two neighbours change places), delete, split (a space within), keyboard
            (a letter of a key beside it), ocr (a letter that looks like it); with the extra `augment` also spelling
            (mistakes that people make), synonyms (out of WordNet), and nlpaug's by its names:
            nlpaug/word/RandomWordAug, SpellingAug, SplitAug, SynonymAug, and nlpaug/char/KeyboardAug, OcrAug,
            RandomCharAug; nlpaug/word/RandomWordAug/swap names an action.
        p_apply: Probability that a sample is augmented, 0 to 1.
        operations: Methods that an augmented sample goes through, one after another, 1 to 10.
        max_share: Largest share of a sample's words that change in all its operations together, above 0 and below 1;
            a sample too short for any has one change all the same.
    """

    enabled: bool = False
    methods: list[str] = field(default_factory=lambda: ["swap", "delete"])
    p_apply: float = 0.15
    operations: int = 1
    max_share: float = 0.2

    def __post_init__(self) -> None:
        problems = unknown_methods(self.methods)
        if not self.methods:
            problems.append(f"--aug.methods: it is empty; choose from {', '.join(METHODS)}")
        if len(set(self.methods)) < len(self.methods):
            problems.append(f"--aug.methods: got {', '.join(self.methods)}; name each once")
        if not 0 <= self.p_apply <= 1:
            problems.append(f"--aug.p_apply: {self.p_apply} is no probability; give 0 to 1")
        if not 1 <= self.operations <= 10:
            problems.append(f"--aug.operations: got {self.operations}; it must be from 1 to 10")
        if not 0 < self.max_share < 1:
            problems.append(f"--aug.max_share: {self.max_share} is no share of words; give a value between 0 and 1")
        if problems:
            raise InputError(problems)

    def applies(self, generator: np.random.Generator) -> bool:
        """Draw whether a sample is augmented."""
        return self.enabled and generator.random() < self.p_apply

    def require_effect(self, augmented: float, samples: float) -> None:
        """Refuse an epoch in which nothing was augmented though it should have been.

        Args:
            augmented: Share of the epoch's samples that were changed.
            samples: How many samples the epoch had.

        Raises:
            InputError: None was changed, and that is no chance.
        """
        if self.enabled and not augmented and samples * self.p_apply >= _CERTAIN:
            raise InputError(
                f"--aug.enabled: it is true and --aug.p_apply is {self.p_apply}, but none of the {samples:.0f} samples"
                f" of the epoch was changed by {', '.join(self.methods)}; choose other --aug.methods"
            )
