"""Read and check a corpus in ReDSM5's format: `posts.csv`, `annotations.csv` and optionally `criteria.yaml`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.annotations import AnnotationRows
from lightning_hpo.data.criteria import read_criteria
from lightning_hpo.data.one_pass_windows import Form, make_windows
from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.pairs import UNKNOWN, Pair, PairTable
from lightning_hpo.data.posts import Posts, Texts, TokenizedPosts, read_posts
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.windows import Windows
from lightning_hpo.exceptions import raise_problems

__all__ = ["Corpus", "TokenizedCorpus", "read_corpus"]


@dataclass(frozen=True)
class Corpus:
    """Validated posts and annotations.

    Attributes:
        posts: Text by post id, byte for byte as in the file, in the order of the file.
        criteria: Text by criterion id.
        pairs: The annotated (post, criterion) pairs. Any other pair is not met.
        counts: Number of rows, labels and sentences that were left out or repaired, by reason.
    """

    posts: Posts
    criteria: dict[str, str]
    pairs: tuple[Pair, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def positives(self) -> list[tuple[str, str]]:
        """Ids of the post and the criterion of each pair that is met."""
        return [(pair.post_id, pair.criterion) for pair in self.pairs if pair.met]

    def pairs_of(self, post_ids: Sequence[str]) -> PairTable:
        """Return every (post, criterion) pair of these posts, annotated or not, in the order of the posts."""
        row, width = self.posts.row, len(self.criteria)
        rows = np.repeat(np.fromiter((row[post_id] for post_id in post_ids), np.int64, len(post_ids)), width)
        columns = np.tile(np.arange(width), len(post_ids))
        return PairTable(
            self.posts.ids, tuple(self.criteria), self.pairs, rows, columns, self._places(rows * width + columns)
        )

    def _places(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index in `pairs` of each cell: row of the post x number of criteria + index of the criterion."""
        row, column = self.posts.row, {criterion: place for place, criterion in enumerate(self.criteria)}
        annotated = (row[pair.post_id] * len(column) + column[pair.criterion] for pair in self.pairs)
        # Sentinel: larger than any cell, so that the search always finds an entry.
        known = np.fromiter((*annotated, np.iinfo(np.int64).max), np.int64)
        order = np.argsort(known)
        nearest = order[np.searchsorted(known, cells, sorter=order)]
        return np.where(known[nearest] == cells, nearest, UNKNOWN)


@dataclass(frozen=True)
class TokenizedCorpus:
    """Posts and criteria as tokens, and the windows that combine them.

    Attributes:
        texts: Text of each post, by its row.
        posts: The tokenized posts.
        criteria: The tokenized criteria, by id.
        windows: Cuts, composes and collates windows.
    """

    texts: Texts
    posts: TokenizedPosts
    criteria: Mapping[str, TokenizedText]
    windows: Windows

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int,
        stride: int,
        form: Form = "pairs",
    ) -> Self:
        """Tokenize a corpus. `max_length` and `stride` are those of `Windows`, and `form` is that of `make_windows`.

        Raises:
            InputError: If the encoder cannot read such windows, or the criteria leave no room for a post.
        """
        template, posts = PairTemplate.of(tokenizer), corpus.posts
        windows = make_windows(form, tokenizer.backend_tokenizer, template, max_length=max_length, stride=stride)
        criteria = dict(zip(corpus.criteria, windows.tokenize(corpus.criteria.values()), strict=True))
        windows.check_criteria(criteria.values())
        return cls(posts.texts, TokenizedPosts(posts.texts, tokenizer, posts.cache), criteria, windows)


def read_corpus(
    posts: str | Path,
    annotations: str | Path,
    criteria: str | Path | None = None,
    aliases: Mapping[str, str] | None = None,
    leave_out: Sequence[str] = ("SPECIAL_CASE",),
) -> Corpus:
    """Read a corpus and check all of it.

    Annotations may conflict: a sentence with both labels is evidence, and a pair with any evidence sentence is met.
    All occurrences of an evidence sentence in its post are evidence.

    Args:
        posts: CSV with the columns `post_id,text`.
        annotations: CSV with the columns `post_id,sentence_text,DSM5_symptom,status` and any others.
        criteria: YAML of criterion id to text. Default: the nine symptoms of DSM-5.
        aliases: Other spellings of a criterion: spelling to id. A spelling that no row has does nothing.
        leave_out: Labels whose rows are left out.

    Raises:
        InputError: If a file has problems: one line each, with the line and column of the file.
    """
    known = {key: text for key, text in read_criteria(criteria).items() if key not in leave_out}
    _check_labels(aliases or {}, known, leave_out)
    counts: Counter[str] = Counter()
    texts = read_posts(posts)
    counts["repeated post rows"] = texts.repeated
    pairs = AnnotationRows(texts, known, aliases or {}, leave_out, counts).read(annotations)
    counts["posts without annotation"] = len(texts) - len({pair.post_id for pair in pairs})
    return Corpus(texts, known, pairs, {name: count for name, count in counts.items() if count})


def _check_labels(aliases: Mapping[str, str], criteria: Mapping[str, str], leave_out: Sequence[str]) -> None:
    problems = [
        f"--data.aliases: {name!r} is also in --data.leave_out; remove it from one of them"
        for name in aliases
        if name in leave_out
    ]
    if not criteria:
        problems.append("--data.leave_out: it removes every criterion; keep at least one")
    raise_problems(problems)
