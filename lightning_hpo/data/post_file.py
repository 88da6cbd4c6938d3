"""Reads `posts.csv`, or what was kept of it when it was read and checked before."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_hpo.data.cache import Cache
from lightning_hpo.data.csv_table import CsvTable, opened, shown
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.texts import Texts, text_stretches
from lightning_hpo.exceptions import InputError

__all__ = ["read_posts"]

_FLAG = "--data.posts"
_COLUMNS = ("post_id", "text")


def read_posts(path: str | Path) -> Posts:
    """The posts of a file. Its bytes decide whether it is the one that was kept, not its date.

    Raises:
        InputError: Every problem of the file, each by line and column.
    """
    path = Path(path)
    with opened(path, flag=_FLAG) as file:
        cache = Cache(path.parent, hashlib.file_digest(file, "sha256").hexdigest()[:32])
    kept = cache.ragged("posts", lambda: text_stretches(_texts(path)), np.uint8)
    texts = Texts(kept)
    about: dict[str, Any] = json.loads(texts[len(texts) - 1])
    return Posts(about["ids"], texts, cache, about["repeated"])


def _texts(path: Path) -> Iterator[str]:
    """The text of each post, and at last the ids and how many rows said nothing new, in JSON."""
    table = CsvTable(path, flag=_FLAG, columns=_COLUMNS)
    # Of a text no more than a number, so that the posts need not be in memory all at once.
    known: dict[str, int] = {}
    problems, rows = [], 0
    for line, row in table.rows():
        rows += 1
        post_id, text = row["post_id"], row["text"]
        if not post_id.strip():
            problems.append(table.problem(line, "post_id", "it is empty; every post needs an id"))
        elif not text.strip():
            problems.append(table.problem(line, "text", f"post {shown(post_id)} is empty; remove it or give its text"))
        elif post_id not in known:
            known[post_id] = hash(text)
            yield text
        elif known[post_id] != hash(text):
            problems.append(table.problem(line, "post_id", f"{shown(post_id)} has another text above; ids must differ"))
    if problems:
        raise InputError(problems)
    yield json.dumps({"ids": list(known), "repeated": rows - len(known)})
