"""Posts tokenized once for a corpus and a tokenizer, kept beside the posts."""

import hashlib
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.tokenization import tokenize
from lightning_hpo.data.tokenized_text import TokenizedText

__all__ = ["TokenizedPosts"]

_FORMAT = "1"
# Columns of the kept table, one row a token.
_POST, _ID, _OFFSETS = 0, 1, slice(2, 4)


class TokenizedPosts:
    """The tokens of every post, read from a cache where there is one.

    Token ids are a post's text in another spelling, so the cache lies in the posts' own folder and nowhere else.

    Args:
        posts: Text by post id.
        tokenizer: The tokenizer.
        folder: The folder of the posts' file; None keeps nothing.
    """

    def __init__(
        self, posts: Mapping[str, str], tokenizer: PreTrainedTokenizerFast, folder: Path | None = None
    ) -> None:
        self._rows = {post_id: row for row, post_id in enumerate(posts)}
        path = folder / ".cache" / f"tokens-{_key(posts, tokenizer)}.npy" if folder else None
        table = _read(path) if path else None
        if table is None:
            table = _table(tokenize(tokenizer.backend_tokenizer, list(posts.values())))
            if path and _may_write(path.parent.parent):
                _write(path, table)
        self._table = table
        self._bounds = np.searchsorted(table[:, _POST], np.arange(len(posts) + 1))

    def __getitem__(self, post_id: str) -> TokenizedText:
        row = self._rows[post_id]
        tokens = self._table[self._bounds[row] : self._bounds[row + 1]]
        return TokenizedText(tokens[:, _ID], tokens[:, _OFFSETS])

    def __len__(self) -> int:
        return len(self._rows)


def _key(posts: Mapping[str, str], tokenizer: PreTrainedTokenizerFast) -> str:
    digest = hashlib.sha256(f"{_FORMAT}\0{tokenizer.backend_tokenizer.to_str()}".encode())
    for text in posts.values():
        encoded = text.encode()
        digest.update(b"%d\0" % len(encoded) + encoded)
    return digest.hexdigest()[:32]


def _table(texts: list[TokenizedText]) -> NDArray[np.int32]:
    rows = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) for text in texts])
    ids = np.concatenate([text.ids for text in texts])
    offsets = np.concatenate([text.offsets for text in texts])
    return np.column_stack([rows, ids, offsets]).astype(np.int32)


def _read(path: Path) -> NDArray[np.int32] | None:
    """The kept table, or None where there is none or it is damaged."""
    try:
        table: NDArray[np.int32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if table.ndim != 2 or table.shape[1] != 4 or table.dtype != np.int32:
        return None
    # Still the mapped file, but without the bookkeeping that a memmap does for each slice.
    return table.view(np.ndarray)


def _may_write(folder: Path) -> bool:
    """Whether the folder's own permissions let anybody write; to root the system would not say no."""
    return bool(folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def _write(path: Path, table: NDArray[np.int32]) -> None:
    """Keep a table; trials that write at once, and readers, only ever see whole files."""
    try:
        path.parent.mkdir(exist_ok=True)
        # Made in the same folder, so that the last step is a mere change of name; removed if it does not come to that.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            np.save(whole, table, allow_pickle=False)
            whole.replace(path)
    except OSError:
        # A read-only folder or a full disk: the tokens are in memory, the next trial makes them again.
        return
