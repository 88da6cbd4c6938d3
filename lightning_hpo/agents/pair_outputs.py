"""Outputs of an evaluation by pair: what tells a model that computes a little differently from another model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.agents.arrays import read_arrays, write_arrays

__all__ = ["PairOutputs"]

# Largest and median difference of log odds, absolute and as a share of their size. A bf16 number has 8 bits, and other
# kernels round other intermediate results: in networks of a few layers, log odds move by .03 to .06.
_BOUNDS_16_BIT = (0.5, 0.1)
_BOUNDS = (1e-2, 1e-3)


@dataclass(frozen=True, eq=False)
class PairOutputs:
    """Log odds of each pair: of "met", or of the best span against "no evidence".

    Args:
        keys: [P] key of each pair (see `post_scores.text_keys`).
        log_odds: [P] its log odds.
    """

    keys: NDArray[np.int64]
    log_odds: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the outputs to a file, which holds no text."""
        write_arrays(path, {"keys": self.keys, "log_odds": self.log_odds})

    @classmethod
    def load(cls, path: Path) -> "PairOutputs | None":
        """Read outputs; None if the file is missing or damaged."""
        found = read_arrays(path)
        if found is None or found.keys() != {"keys", "log_odds"}:
            return None
        keys, log_odds = found["keys"], found["log_odds"]
        is_valid = (
            keys.dtype == np.int64 and log_odds.dtype.kind == "f" and keys.shape == log_odds.shape == keys.shape[:1]
        )
        return cls(keys, log_odds) if is_valid else None

    def difference(self, other: "PairOutputs", *, is_16_bit: bool) -> str:
        """Return how other outputs differ by more than the precision explains, or an empty text.

        Args:
            other: Outputs of the same network, perhaps on another device.
            is_16_bit: Whether one of them was computed in bf16 or fp16.
        """
        own, others = self._sorted(), other._sorted()
        if not np.array_equal(own.keys, others.keys):
            return "the pairs are others"
        one, two = own.log_odds.astype(np.float64), others.log_odds.astype(np.float64)
        with np.errstate(invalid="ignore"):
            distance = np.where(one == two, 0.0, np.abs(one - two))  # infinite ones may be equal
            moved = np.where(distance == 0.0, 0.0, distance / np.maximum(1.0, np.abs(one) / 10))
        largest, median = _BOUNDS_16_BIT if is_16_bit else _BOUNDS
        # Written so that NaN is a difference.
        if not len(moved) or (moved.max() <= largest and np.median(moved) <= median):
            return ""
        return (
            f"its log odds differ from those of the trial by up to {distance.max():.3g} "
            f"(median {np.median(distance):.3g}), which the precision does not explain"
        )

    def _sorted(self) -> "PairOutputs":
        order = np.argsort(self.keys, kind="stable")
        return PairOutputs(self.keys[order], self.log_odds[order])
