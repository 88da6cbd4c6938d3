"""Posts of made-up sentences with their annotations, in ReDSM5's form."""

import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lightning_hpo.data.demo_sentences import EVERYDAY, NOT_EVIDENCE, SLOTS, SYMPTOMS
from lightning_hpo.data.dsm5 import DSM5_CRITERIA

__all__ = ["DemoCorpus", "sentence"]

_HEADER = ("post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation")
_SPECIAL = "SPECIAL_CASE"


@dataclass(frozen=True)
class _Line:
    """A sentence of a post; without a label nobody annotated it."""

    text: str
    label: str = ""
    status: int = 0


class DemoCorpus:
    """A corpus that is made up, sentence by sentence, from a seed.

    Most posts are short and a few are long; some have the text of another, and some rows are special cases.

    Args:
        posts: How many posts.
        seed: Decides everything.
    """

    def __init__(self, posts: int, seed: int) -> None:
        draw = random.Random(seed)
        self._posts = [_post(draw) for _ in range(posts)]
        # ReDSM5 has a few texts under two ids; a split must keep these together.
        for place in range(80, posts, 80):
            self._posts[place] = self._posts[place - 1]

    def texts(self) -> list[str]:
        """The text of each post."""
        return [" ".join(line.text for line in post) for post in self._posts]

    def write(self, folder: Path) -> None:
        """Write posts.csv, annotations.csv and criteria.yaml."""
        ids = [f"demo_{place:04d}" for place in range(len(self._posts))]
        _write_csv(folder / "posts.csv", ("post_id", "text"), list(zip(ids, self.texts(), strict=True)))
        rows = [
            (post_id, f"{post_id}_{place}", line.text, line.label, line.status, "")
            for post_id, post in zip(ids, self._posts, strict=True)
            for place, line in enumerate(post)
            if line.label
        ]
        _write_csv(folder / "annotations.csv", _HEADER, rows)
        (folder / "criteria.yaml").write_text(
            yaml.safe_dump(DSM5_CRITERIA, sort_keys=False, width=200), encoding="utf-8"
        )


def sentence(template: str, draw: random.Random) -> str:
    """A sentence of a template with each slot filled."""
    return re.sub(r"{(\w+)}", lambda slot: draw.choice(SLOTS[slot[1]]), template)


def _post(draw: random.Random) -> list[_Line]:
    length = draw.choices((draw.randint(1, 6), draw.randint(6, 12), draw.randint(30, 60)), (70, 27, 3))[0]
    lines = [_Line(sentence(draw.choice(EVERYDAY), draw)) for _ in range(length)]
    labels = draw.sample(sorted(SYMPTOMS), draw.choices((0, 1, 2, 3), (15, 50, 25, 10))[0])
    added = [_Line(sentence(draw.choice(SYMPTOMS[label]), draw), label, 1) for label in labels]
    others = draw.sample(sorted(set(SYMPTOMS) - set(labels)), draw.choices((0, 1), (65, 35))[0])
    added += [_Line(sentence(draw.choice(NOT_EVIDENCE[label]), draw), label) for label in others]
    for line in added:
        lines.insert(draw.randint(0, len(lines)), line)
    if draw.random() < 0.03:
        lines.append(_Line(sentence(draw.choice(EVERYDAY), draw), _SPECIAL, 1))
    return lines


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
