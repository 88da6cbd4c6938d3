"""A pair as it is scored: with all windows of its post."""

from dataclasses import dataclass

from lightning_hpo.data.pair import Pair
from lightning_hpo.data.window_target import WindowTarget

__all__ = ["ScoredPair"]


@dataclass(frozen=True)
class ScoredPair:
    """A pair with the token range [first, stop) and the target of each window; no target where nothing is known."""

    pair: Pair
    ranges: tuple[tuple[int, int], ...]
    targets: tuple[WindowTarget, ...] = ()
