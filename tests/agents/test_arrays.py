import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lightning_hpo.agents import arrays
from lightning_hpo.agents.arrays import read_arrays, write_arrays


def test_arrays_of_any_size_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outputs.npz"
    write_arrays(path, {"keys": np.zeros(100_000)})
    assert path.stat().st_size < 10_000
    assert read_arrays(path) is not None
    monkeypatch.setattr(arrays, "_MOST_BYTES", 700_000)
    assert read_arrays(path) is None


def test_damaged_arrays_count_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "outputs.npz"
    header = str({"descr": "<f8", "fortran_order": False, "shape": (10**15,)}).ljust(118).encode() + b"\n"
    contents = [b"\x93NUMPY\x01\x00v\x00" + header, b"no array", b"\x93NUMPY\x01\x00\xff\xff"]
    for content in contents:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("keys.npy", content)
        assert read_arrays(path) is None
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("keys", b"no array, and no name of one")
    assert read_arrays(path) is None


def test_pipe_and_folder_count_as_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_arrays(tmp_path / "pipe") is None
    assert read_arrays(tmp_path) is None
