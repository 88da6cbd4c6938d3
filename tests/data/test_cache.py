from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightning_hpo.data.cache import Cache
from lightning_hpo.data.ragged import Chunk, Ragged
from lightning_hpo.exceptions import InputError

ROWS = [[1, 2, 3], [], [4]]


def _chunks() -> Iterator[Chunk]:
    yield np.array([1, 2, 3]), [3, 0]
    yield np.array([4]), [1]


def _never() -> Iterator[Chunk]:
    raise AssertionError("the cache was not read")


def _ragged(folder: Path | None, key: str = "key") -> Ragged:
    return Cache(folder, key).ragged("rows", _chunks, np.int64)


def _rows(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


def test_rows_are_computed_once_for_a_key(tmp_path: Path) -> None:
    assert _rows(_ragged(tmp_path)) == ROWS
    assert _rows(Cache(tmp_path, "key").ragged("rows", _never, np.int64)) == ROWS
    with pytest.raises(AssertionError, match="was not read"):
        Cache(tmp_path, "other").ragged("rows", _never, np.int64)
    assert sorted(path.suffix for path in (tmp_path / ".cache").iterdir()) == [".bin", ".npy"]


def test_array_is_computed_once_for_a_key(tmp_path: Path) -> None:
    one, other = (Cache(tmp_path, key) for key in "ab")
    made = [one.array("x", lambda: np.array([1])), other.array("x", lambda: np.array([2]))]
    again = [cache.array("x", lambda: np.array([3])) for cache in (one, other)]
    assert np.array_equal(made, again)


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_damaged_files_are_computed_again(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    _ragged(tmp_path)
    (path,) = (tmp_path / ".cache").glob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert _rows(_ragged(tmp_path)) == ROWS
    assert _rows(Cache(tmp_path, "key").ragged("rows", _never, np.int64)) == ROWS


def test_error_leaves_no_files(tmp_path: Path) -> None:
    def refuse() -> Iterator[Chunk]:
        yield np.array([1]), [1]
        raise InputError("no")

    with pytest.raises(InputError):
        Cache(tmp_path, "key").ragged("rows", refuse, np.int64)
    assert not list((tmp_path / ".cache").iterdir())


def test_read_only_folder_is_not_changed(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert _rows(_ragged(tmp_path)) == _rows(_ragged(None)) == ROWS
    assert Cache(tmp_path, "key").array("one", lambda: np.array([5])) == [5]
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o755)


def test_missing_cache_folder_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file")
    assert _rows(_ragged(tmp_path)) == ROWS
