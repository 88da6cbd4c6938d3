"""Posts of a corpus: read from `posts.csv` or its cache, as texts and as tokens."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.cache import Cache
from lightning_hpo.data.csv_table import CsvTable, cell_problem, opened, shown
from lightning_hpo.data.ragged import Chunk, Ragged
from lightning_hpo.data.tokenization import TokenizedText, token_chunks
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["Posts", "Texts", "TokenizedPosts", "read_posts", "text_chunks"]

_FLAG = "--data.posts"

# Texts encoded at a time: a few megabytes.
_ROWS_AT_ONCE = 2048


class Texts:
    """Texts that are decoded on demand from rows of UTF-8 bytes."""

    def __init__(self, rows: Ragged) -> None:
        self._rows = rows

    def __getitem__(self, row: int) -> str:
        return self._rows[row].tobytes().decode()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


def text_chunks(texts: Iterable[str]) -> Iterator[Chunk]:
    """Encode texts as the rows that `Texts` reads."""
    rows = (text.encode() for text in texts)
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield np.frombuffer(b"".join(some), np.uint8), map(len, some)


class Posts(Mapping[str, str]):
    """Text by post id, byte for byte as in the file, in the order of the file. All arguments are also attributes.

    Args:
        ids: Id of each post.
        texts: Text of each post; there may be more texts than posts.
        cache: Cache of arrays that are computed from the posts.
        repeated: Number of rows of the file that repeat an earlier row.
        empty: Line number by post id, for each post without text.
    """

    def __init__(
        self,
        ids: Sequence[str],
        texts: Texts,
        cache: Cache,
        repeated: int = 0,
        empty: Mapping[str, int] | None = None,
    ) -> None:
        self.ids, self.texts, self.cache, self.repeated, self.empty = ids, texts, cache, repeated, empty or {}

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> "Posts":
        """Make posts in memory, without a cache."""
        return cls(list(texts), Texts(Ragged.gathered(text_chunks(texts.values()), np.uint8)), Cache())

    @cached_property
    def row(self) -> Mapping[str, int]:
        """Row of each id."""
        return {post_id: row for row, post_id in enumerate(self.ids)}

    def __getitem__(self, post_id: str) -> str:
        return self.texts[self.row[post_id]]

    def __contains__(self, post_id: object) -> bool:
        return post_id in self.row

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def read_posts(path: str | Path, *, with_empty: bool = False) -> Posts:
    """Read posts from a CSV file, or from its cache if a file of the same content was read before.

    Args:
        path: The file.
        with_empty: Whether posts may be empty. `Posts.empty` lists them.

    Raises:
        InputError: The file has problems; one line each, with the line and column of the file.
    """
    path = Path(path)
    with opened(path, flag=_FLAG) as file:
        cache = Cache(path, hashlib.file_digest(file, "sha256").hexdigest()[:32])
    rows = cache.ragged("posts", lambda: text_chunks(_texts(path, with_empty=with_empty)), np.uint8)
    texts = Texts(rows)
    about: dict[str, Any] = json.loads(texts[len(texts) - 1])
    posts = Posts(about["ids"], texts, cache, about["repeated"], about.get("empty", {}))
    if not with_empty:
        raise_problems(_empty_problem(path, line, post_id) for post_id, line in posts.empty.items())
    return posts


def _texts(path: Path, *, with_empty: bool) -> Iterator[str]:
    """Yield the text of each post, then the ids and the number of repeated rows as JSON."""
    table = CsvTable(path, flag=_FLAG, columns=("post_id", "text"))
    # Hashes only, so that the texts need not be in memory at the same time.
    known: dict[str, int] = {}
    empty: dict[str, int] = {}
    problems: dict[int, str] = {}
    rows = 0
    for line, row in table.rows():
        rows += 1
        post_id, text = row["post_id"], row["text"]
        if not post_id.strip():
            problems[line] = "the cell is empty; add the id of the post"
        elif post_id not in known:
            known[post_id] = hash(text)
            if not text.strip():
                empty[post_id] = line
            yield text
        elif known[post_id] != hash(text):
            problems[line] = f"{shown(post_id)} has another text above; change the id"
    if problems:
        lines = {line: cell_problem(path, line, "post_id", message) for line, message in problems.items()}
        if not with_empty:
            lines |= {line: _empty_problem(path, line, post_id) for post_id, line in empty.items()}
        raise InputError([lines[line] for line in sorted(lines)])
    yield json.dumps({"ids": list(known), "repeated": rows - len(known), "empty": empty})


def _empty_problem(path: Path, line: int, post_id: str) -> str:
    return cell_problem(path, line, "text", f"post {shown(post_id)} is empty; add text or remove it")


class TokenizedPosts:
    """Tokens of every post by its row, computed once. They stay in memory if there is no cache."""

    def __init__(self, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, cache: Cache | None = None) -> None:
        backend = tokenizer.backend_tokenizer
        name = "tokens-" + hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]
        self._tokens = (cache or Cache()).ragged(name, lambda: token_chunks(backend, texts), np.int32, (3,))

    def __getitem__(self, row: int) -> TokenizedText:
        tokens = self._tokens[row]
        return TokenizedText(tokens[:, 0], tokens[:, 1:])

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each post, shape [posts]."""
        return self._tokens.sizes
