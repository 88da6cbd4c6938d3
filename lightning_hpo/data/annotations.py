"""Read `annotations.csv`: check each row, find its sentence in the post, and collect the (post, criterion) pairs."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from lightning_hpo.data.csv_table import CsvTable, cell_problem, nearest, shown
from lightning_hpo.data.lost_evidence import LOST, lost_cause
from lightning_hpo.data.pairs import Pair
from lightning_hpo.data.sentence_search import find_sentence
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["AnnotationRows"]

_COLUMNS = ("post_id", "sentence_text", "DSM5_symptom", "status")
# pandas writes integers as 1.0 and 0.0 if a column has empty cells.
_STATUS = {"1": True, "0": False, "1.0": True, "0.0": False}

# Forms in which ids are equal that differ only because a program has changed them.
_ID_FORMS: dict[str, Callable[[str], str]] = {
    "white space around them": str.strip,
    "upper and lower case": str.casefold,
    "a decimal part such as `.0`, which pandas adds": lambda post_id: post_id.strip().removesuffix(".0"),
    "zeros at their start, which Excel removes": lambda post_id: post_id.strip().lstrip("0"),
}


class AnnotationRows:
    """Reader of annotation rows that checks them against the posts and the criteria.

    Args:
        texts: Text by post id.
        criteria: Text by criterion id.
        aliases: Other spellings of a criterion: spelling to id.
        leave_out: Labels whose rows are left out.
        counts: Counter to which the numbers of rows and sentences left out or repaired are added.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        criteria: Mapping[str, str],
        aliases: Mapping[str, str],
        leave_out: Sequence[str],
        counts: Counter[str],
    ) -> None:
        self._texts, self._criteria, self._aliases, self._leave_out = texts, criteria, aliases, leave_out
        self._counts = counts
        # Sentences by (post, criterion), each with whether any row labels it as evidence.
        self._sentences: dict[tuple[str, str], dict[str, bool]] = {}

    def read(self, path: str | Path) -> tuple[Pair, ...]:
        """Read a file and return its annotated pairs in the order of their first rows.

        Raises:
            InputError: The file cannot be read, some cells are invalid (one line each), or no row is left.
        """
        table = CsvTable(path, flag="--data.annotations", columns=_COLUMNS)
        problems: dict[tuple[int, str], str] = {}
        strangers, rows = set(), 0
        for line, row in table.rows():
            label = row["DSM5_symptom"].strip()
            if label in self._leave_out:
                self._counts[f"rows left out ({label})"] += 1
                continue
            rows += 1
            found = self._problems(row)
            problems |= {
                (line, column): cell_problem(table.path, line, column, message) for column, message in found.items()
            }
            if "post_id" in found:
                strangers.add(row["post_id"])
            if not found:
                self._add(row)
        if not rows:
            raise InputError(f"{table.path}: --data.leave_out removes every row; keep at least one label")
        lines = list(problems.values())
        if sum(column == "post_id" for _, column in problems) == rows:
            lines = [
                f"{table.path}: none of its {rows} rows has a post_id of --data.posts; {self._difference(strangers)}"
            ]
            lines += [problem for (_, column), problem in problems.items() if column != "post_id"]
        raise_problems(lines)
        return tuple(self._pair(key, sentences) for key, sentences in self._sentences.items())

    def _difference(self, strangers: Collection[str]) -> str:
        """Return what to change in post ids that have no post."""
        for what, normal in _ID_FORMS.items():
            if {normal(post_id) for post_id in self._texts} & {normal(post_id) for post_id in strangers}:
                return f"the ids differ only in {what}: use the same ids in both files"
        return "give the posts and the annotations of the same corpus"

    def _problems(self, row: Mapping[str, str]) -> dict[str, str]:
        """Return the problems of a row, by column."""
        problems = {}
        if row["post_id"] not in self._texts:
            problems["post_id"] = (
                f"{shown(row['post_id'])} is not a post of --data.posts; add the post or remove the row"
            )
        if not row["sentence_text"].strip():
            problems["sentence_text"] = "the cell is empty; add the sentence or remove the row"
        if (criterion := self._criterion(row)) not in self._criteria:
            problems["DSM5_symptom"] = self._unknown(row["DSM5_symptom"].strip(), criterion)
        if row["status"].strip() not in _STATUS:
            problems["status"] = "the status is neither 1 nor 0; use one of them"
        return problems

    def _unknown(self, label: str, criterion: str) -> str:
        close = nearest(criterion, list(self._criteria)) or f"; the criteria are {', '.join(self._criteria)}."
        if label in self._aliases:
            return f"{shown(label)} is mapped by --data.aliases to {criterion!r}, which is not a criterion{close}"
        return f"{shown(label)} is not a criterion{close} Map it with --data.aliases or drop it with --data.leave_out"

    def _criterion(self, row: Mapping[str, str]) -> str:
        label = row["DSM5_symptom"].strip()
        return self._aliases.get(label, label)

    def _add(self, row: Mapping[str, str]) -> None:
        label, sentence = row["DSM5_symptom"].strip(), row["sentence_text"].strip()
        positive = _STATUS[row["status"].strip()]
        known = self._sentences.setdefault((row["post_id"], self._criterion(row)), {})
        self._counts["labels mapped by --data.aliases"] += label in self._aliases
        if sentence in known:
            self._counts["repeated annotation rows"] += 1
            self._counts["rows that contradict another, evidence wins"] += known[sentence] != positive
        known[sentence] = known.get(sentence, False) or positive

    def _pair(self, key: tuple[str, str], sentences: Mapping[str, bool]) -> Pair:
        """Label a pair from its sentences and find its evidence."""
        positives = [sentence for sentence, positive in sentences.items() if positive]
        mixed = 0 < len(positives) < len(sentences)
        self._counts["pairs with sentences of both labels, taken as met"] += mixed
        spans: set[tuple[int, int]] = set()
        for sentence in positives:
            found, repair = find_sentence(self._texts[key[0]], sentence)
            if not found:
                self._count_lost(self._texts[key[0]], sentence)
            if repair:
                self._counts[f"evidence sentences found with other {repair}"] += 1
            self._counts["evidence sentences that occur more than once"] += len(found) > 1
            spans.update(found)
        return Pair(*key, met=bool(positives), spans=tuple(sorted(spans)))

    def _count_lost(self, post: str, sentence: str) -> None:
        self._counts[LOST] += 1
        if cause := lost_cause(post, sentence):
            self._counts[cause] += 1
