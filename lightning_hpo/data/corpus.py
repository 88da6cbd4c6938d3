"""Read and check a corpus in ReDSM5's format: `posts.csv`, `annotations.csv` and optionally `criteria.yaml`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_hpo.data.annotations import AnnotationRows
from lightning_hpo.data.criteria import read_criteria
from lightning_hpo.data.csv_table import CsvTable, nearest, shown
from lightning_hpo.data.pairs import UNKNOWN, Pair, PairTable
from lightning_hpo.data.posts import Posts, read_posts
from lightning_hpo.exceptions import InputError

__all__ = ["Corpus", "read_corpus"]


@dataclass(frozen=True)
class Corpus:
    """Posts and their annotations, checked.

    Attributes:
        posts: Text by post id, byte for byte as in the file, in the order of the file.
        criteria: Text by criterion id.
        pairs: The annotated (post, criterion) pairs. Any other pair is not met.
        counts: How many rows, labels or sentences were left out or repaired, by what happened to them.
    """

    posts: Posts
    criteria: dict[str, str]
    pairs: tuple[Pair, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def pairs_of(self, post_ids: Sequence[str]) -> PairTable:
        """Every (post, criterion) pair of these posts, annotated or not, in the order of the posts."""
        row, width = self.posts.row, len(self.criteria)
        rows = np.repeat(np.fromiter((row[post_id] for post_id in post_ids), np.int64, len(post_ids)), width)
        columns = np.tile(np.arange(width), len(post_ids))
        return PairTable(
            self.posts.ids, tuple(self.criteria), self.pairs, rows, columns, self._places(rows * width + columns)
        )

    def _places(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place among the annotated pairs of each cell: row of the post x criteria + place of the criterion."""
        row, column = self.posts.row, {criterion: place for place, criterion in enumerate(self.criteria)}
        annotated = (row[pair.post_id] * len(column) + column[pair.criterion] for pair in self.pairs)
        # An end that no cell has.
        known = np.fromiter((*annotated, np.iinfo(np.int64).max), np.int64)
        order = np.argsort(known)
        nearest = order[np.searchsorted(known, cells, sorter=order)]
        return np.where(known[nearest] == cells, nearest, UNKNOWN)


def read_corpus(
    posts: str | Path,
    annotations: str | Path,
    criteria: str | Path | None = None,
    aliases: Mapping[str, str] | None = None,
    leave_out: Sequence[str] = ("SPECIAL_CASE",),
) -> Corpus:
    """Read a corpus and check all of it.

    Annotations may conflict: a sentence with both labels is evidence, and a pair with any evidence sentence is met.
    All occurrences of an evidence sentence in its post are gold.

    Args:
        posts: CSV with the columns `post_id,text`.
        annotations: CSV with the columns `post_id,sentence_text,DSM5_symptom,status` and any others.
        criteria: YAML of criterion id to text; the nine symptoms of DSM-5 where there is none.
        aliases: Other spellings of a criterion: spelling to id.
        leave_out: Labels whose rows are left out.

    Raises:
        InputError: Every problem of a file, each by line and column.
    """
    known = {key: text for key, text in read_criteria(criteria).items() if key not in leave_out}
    _refuse_labels(aliases or {}, known, leave_out)
    counts: Counter[str] = Counter()
    texts = read_posts(posts)
    counts["repeated post rows"] = texts.repeated
    table = CsvTable(annotations, flag="--data.annotations", columns=AnnotationRows.columns())
    pairs = AnnotationRows(texts, known, aliases or {}, leave_out, counts).read(table)
    counts["posts without annotation"] = len(texts) - len({pair.post_id for pair in pairs})
    return Corpus(texts, known, pairs, {name: count for name, count in counts.items() if count})


def _refuse_labels(aliases: Mapping[str, str], criteria: Mapping[str, str], leave_out: Sequence[str]) -> None:
    problems = [
        f"--data.aliases: {shown(name)} is mapped to {shown(target)}, which is no criterion"
        f"{nearest(target, list(criteria)) or '; the criteria are ' + ', '.join(criteria)}"
        for name, target in aliases.items()
        if target not in criteria
    ]
    problems += [
        f"--data.aliases: {shown(name)} is in --data.leave_out as well; choose one"
        for name in aliases
        if name in leave_out
    ]
    if not criteria:
        problems.append("--data.leave_out: it leaves out every criterion; keep at least one")
    if problems:
        raise InputError(problems)
