"""What the loader hands on: posts, criteria, annotated pairs, and counts of what it repaired or left out."""

from dataclasses import dataclass, field

from lightning_hpo.data.pair import Pair

__all__ = ["Corpus"]


@dataclass(frozen=True)
class Corpus:
    """Posts and their annotations, checked.

    Attributes:
        posts: Text by post id, byte for byte as in the file, in the order of the file.
        criteria: Text by criterion id.
        pairs: The annotated (post, criterion) pairs. Any other pair is not met.
        counts: How many rows, labels or sentences were left out or repaired, by what happened to them.
    """

    posts: dict[str, str]
    criteria: dict[str, str]
    pairs: tuple[Pair, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def pairs_of(self, post_ids: tuple[str, ...]) -> list[Pair]:
        """Every (post, criterion) pair of these posts, annotated or not, in the order of the posts."""
        annotated = {(pair.post_id, pair.criterion): pair for pair in self.pairs}
        return [
            annotated.get((post_id, criterion), Pair(post_id, criterion, met=False))
            for post_id in post_ids
            for criterion in self.criteria
        ]
