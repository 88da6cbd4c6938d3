"""A post beside a criterion, with what the annotator says about the two."""

from dataclasses import dataclass

__all__ = ["Pair"]


@dataclass(frozen=True)
class Pair:
    """One (post, criterion) pair.

    Attributes:
        post_id: The post.
        criterion: Id of the criterion.
        met: Whether the post meets the criterion.
        spans: Evidence as character ranges [start, end) of the post, sorted. Empty where the criterion is not met,
            and where it is met but no evidence sentence was found in the post.
    """

    post_id: str
    criterion: str
    met: bool
    spans: tuple[tuple[int, int], ...] = ()
