"""Texts that are not in memory until they are asked for."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from lightning_hpo.data.ragged import Ragged, Stretch

__all__ = ["Texts", "text_stretches"]

# A few megabytes of posts.
_ROWS_AT_ONCE = 2048


class Texts:
    """Texts over their bytes in UTF-8.

    Args:
        rows: The bytes of each text.
    """

    def __init__(self, rows: Ragged) -> None:
        self._rows = rows

    def __getitem__(self, row: int) -> str:
        return self._rows[row].tobytes().decode()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))


def text_stretches(texts: Iterable[str]) -> Iterator[Stretch]:
    """Texts as the rows that `Texts` reads."""
    rows = (text.encode() for text in texts)
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield np.frombuffer(b"".join(some), np.uint8), map(len, some)
