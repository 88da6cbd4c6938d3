"""Reads and checks files of ReDSM5's form: `posts.csv`, `annotations.csv` and, if there is one, `criteria.yaml`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_hpo.data.annotation_rows import AnnotationRows
from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.criteria_file import read_criteria
from lightning_hpo.data.csv_table import CsvTable, nearest, shown
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.post_file import read_posts
from lightning_hpo.exceptions import InputError

__all__ = ["Corpus", "Pair", "read_corpus", "read_criteria", "read_posts"]


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
