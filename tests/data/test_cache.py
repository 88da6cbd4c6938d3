import os
import stat
import subprocess
import sys
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The file that the cache belongs to."""
    path = tmp_path / "posts.csv"
    path.write_text("post_id,text\n")
    path.chmod(0o644)
    return path


def _folder(source: Path) -> Path:
    return source.parent / ".cache/lightning_hpo" / source.name


def _ragged(source: Path | None, key: str = "key") -> Ragged:
    return Cache(source, key).ragged("rows", _chunks, np.int64)


def _rows(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


def test_rows_are_computed_once_for_a_key(source: Path) -> None:
    assert _rows(_ragged(source)) == ROWS
    assert _rows(Cache(source, "key").ragged("rows", _never, np.int64)) == ROWS
    assert sorted(path.suffix for path in _folder(source).iterdir()) == [".bin", ".npy"]
    with pytest.raises(AssertionError, match="was not read"):
        Cache(source, "other").ragged("rows", _never, np.int64)


def test_array_is_computed_once_for_a_key(source: Path) -> None:
    one, other = Cache(source, "a"), Cache(source, "b")
    made = [one.array("x", lambda: np.array([1])), other.array("x", lambda: np.array([2]))]
    again = [cache.array("x", lambda: np.array([3])) for cache in (one, other)]
    assert np.array_equal(made, again)


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_damaged_files_are_computed_again(source: Path, suffix: str, content: bytes | None) -> None:
    _ragged(source)
    (path,) = _folder(source).glob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert _rows(_ragged(source)) == ROWS
    assert _rows(Cache(source, "key").ragged("rows", _never, np.int64)) == ROWS


def test_error_leaves_no_files(source: Path) -> None:
    def refuse() -> Iterator[Chunk]:
        yield np.array([1]), [1]
        raise InputError("no")

    with pytest.raises(InputError):
        Cache(source, "key").ragged("rows", refuse, np.int64)
    assert not list(_folder(source).iterdir())


def test_read_only_folder_is_not_changed(source: Path) -> None:
    source.parent.chmod(0o555)
    assert _rows(_ragged(source)) == _rows(_ragged(None)) == ROWS
    assert Cache(source, "key").array("one", lambda: np.array([5])) == [5]
    assert list(source.parent.iterdir()) == [source]
    source.parent.chmod(0o755)


def test_missing_cache_folder_is_no_error(source: Path) -> None:
    (source.parent / ".cache").write_text("a file")
    assert _rows(_ragged(source)) == ROWS


def _modes(folder: Path) -> dict[str, int]:
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder.parent)): stat.S_IMODE(path.stat().st_mode) for path in paths}


@pytest.mark.parametrize(("mode", "folder_mode"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755), (0o400, 0o700)])
def test_cache_has_the_permissions_of_the_file(source: Path, mode: int, folder_mode: int) -> None:
    source.chmod(mode)
    cache = Cache(source, "key")
    cache.ragged("rows", _chunks, np.int64)
    cache.array("one", lambda: np.array([5]))
    modes = _modes(source.parent / ".cache")
    assert len(modes) == 6
    for name, found in modes.items():
        assert found == (mode | 0o200 if name.endswith((".bin", ".npy")) else folder_mode), name


def test_permissions_follow_those_of_the_file(source: Path) -> None:
    _ragged(source)
    source.chmod(0o600)
    _ragged(source)
    assert set(_modes(_folder(source)).values()) == {0o700, 0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_cache_has_the_group_of_the_file(source: Path) -> None:
    os.chown(source, -1, 12345)
    _ragged(source)
    assert {path.stat().st_gid for path in [_folder(source), *_folder(source).iterdir()]} == {12345}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", [".cache", ".cache/lightning_hpo", ".cache/lightning_hpo/posts.csv"])
def test_folder_of_another_user_is_neither_read_nor_written(source: Path, name: str) -> None:
    Cache(source, "key").ragged("rows", lambda: iter([(np.array([9]), [1])]), np.int64)
    before = _modes(source.parent / ".cache")
    os.chown(source.parent / name, 12345, -1)
    source.chmod(0o600)
    assert _rows(_ragged(source)) == ROWS
    assert _modes(source.parent / ".cache") == before
    os.chown(source, 12345, -1)  # its owner may read the posts as well
    assert _rows(Cache(source, "key").ragged("rows", _never, np.int64)) == [[9]]


def test_cache_holds_only_what_the_file_holds(source: Path) -> None:
    other = source.with_name("other.csv")
    other.write_text("post_id,text\n")
    for path, key in ((source, "old"), (other, "old"), (source, "new")):
        _ragged(path, key)
    assert {path.name.split("-")[-1] for path in _folder(source).iterdir()} == {"new.bin", "new.npy"}
    assert len(list(_folder(other).iterdir())) == 2
    other.unlink()
    _ragged(source, "new")
    assert not _folder(other).exists()


def test_files_of_version_0_1_0_are_removed_and_those_of_others_kept(source: Path) -> None:
    folder, key = source.parent / ".cache", "0123456789abcdef" * 2
    names = [f"posts-2-{key}.bin", f"tokens-ab12-2-{key}.npy", f"draw-17-2-{key}.npy", f"tmpab12_xyz/posts-2-{key}.bin"]
    kept = ["posts.csv", f"mine-2-{key}.bin", "tmpab12_xyw/mine", "pip/cache"]
    for name in (*names, *kept):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("post")
    _ragged(source)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("lightning_hpo/")} == set(kept)


def test_files_of_a_killed_process_are_removed_and_those_of_a_running_one_kept(source: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np
from lightning_hpo.data.cache import Cache

def wait():
    yield np.array([1]), [1]
    print("writing", flush=True)
    sys.stdin.read()

Cache(Path({str(source)!r}), "key").ragged("rows", wait, np.int64)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        Cache(source, "key")
        (left,) = _folder(source).iterdir()
        assert (left / "rows-3-key.bin").is_file()
        process.kill()
    assert left.is_dir()
    Cache(source, "key")
    assert not left.exists()
