"""Posts and positives of each split, and what they cannot measure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["SplitSize", "recorded_sizes", "sizes_line", "split_lines", "split_problems", "split_sizes"]

_NAMES = {"train": "training", "val": "validation", "test": "test"}
_MOST_CRITERIA = 12


@dataclass(frozen=True)
class SplitSize:
    """Size of a split.

    Attributes:
        posts: Number of posts.
        positives: Number of positive posts by criterion, for every criterion.
    """

    posts: int
    positives: Mapping[str, int]

    @property
    def total(self) -> int:
        """Number of positive pairs."""
        return sum(self.positives.values())

    def measured(self, *, negatives: bool) -> list[str]:
        """Return the criteria that have positives, and also negatives if the scores need them."""
        return [name for name, count in self.positives.items() if 0 < count < self.posts + (not negatives)]


def split_sizes(
    splits: Mapping[str, Sequence[str]], positives: Iterable[tuple[str, str]], criteria: Collection[str]
) -> dict[str, SplitSize]:
    """Count the posts and the positives of each split.

    Args:
        splits: Post ids of each split.
        positives: Ids of the post and the criterion of each positive pair.
        criteria: Id of every criterion.
    """
    owner = {post_id: name for name, post_ids in splits.items() for post_id in post_ids}
    counts = Counter((owner[post_id], criterion) for post_id, criterion in positives)
    return {
        name: SplitSize(len(post_ids), {criterion: counts[name, criterion] for criterion in criteria})
        for name, post_ids in splits.items()
    }


def split_problems(sizes: Mapping[str, SplitSize], *, negatives: bool, splits: Collection[str]) -> list[str]:
    """Return an error line for each of these splits in which no criterion can be measured.

    Args:
        sizes: Size of every split.
        negatives: Whether scores need negatives of a criterion, besides positives.
        splits: Names of the splits to check.
    """
    if not any(size.total for size in sizes.values()):
        return ["--data.annotations: no post is positive for any criterion; add rows with the status 1"]
    return [
        _problem(name, sizes, negatives=negatives) for name in splits if not sizes[name].measured(negatives=negatives)
    ]


def _problem(name: str, sizes: Mapping[str, SplitSize], *, negatives: bool) -> str:
    size = sizes[name]
    wanted = "meet one and posts that do not" if negatives else "meet one"
    fractions = "--data.val_fraction or --data.test_fraction" if name == "train" else f"--data.{name}_fraction"
    counts = [
        f"{criterion} {count} positives ({sum(each.positives[criterion] for each in sizes.values())} in all splits)"
        for criterion, count in size.positives.items()
    ]
    more = f" and {len(counts) - _MOST_CRITERIA} more" if len(counts) > _MOST_CRITERIA else ""
    return (
        f"--data.annotations: the {_NAMES[name]} split cannot measure any criterion: its {size.posts} posts have "
        f"{', '.join(counts[:_MOST_CRITERIA])}{more}; add posts that {wanted}, or change {fractions} or --data.seed"
    )


def recorded_sizes(recorded: Mapping[str, Mapping[str, Any]]) -> dict[str, SplitSize]:
    """Return the sizes of a study from their JSON values."""
    return {name: SplitSize(**size) for name, size in recorded.items()}


def sizes_line(sizes: Mapping[str, SplitSize]) -> str:
    """Return sizes in a line, such as `train 70 posts with 30 positives, val ...`."""
    return ", ".join(f"{name} {size.posts} posts with {size.total} positives" for name, size in sizes.items())


def split_lines(rule: str, sizes: Mapping[str, SplitSize]) -> list[str]:
    """Return lines with the sizes of the splits, and with the criteria that have no positive in one of them."""
    missing = {name: [key for key, count in size.positives.items() if not count] for name, size in sizes.items()}
    listed = "; ".join(f"{name}: {', '.join(criteria)}" for name, criteria in missing.items() if criteria)
    lines = [f"split ({rule}): {sizes_line(sizes)}"]
    return [*lines, f"criteria without positives, whose scores mean nothing there: {listed}"] if listed else lines
