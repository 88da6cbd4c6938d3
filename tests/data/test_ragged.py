import pickle
from pathlib import Path

import numpy as np

from lightning_hpo.data.ragged import Chunk, Ragged

CHUNKS: list[Chunk] = [(np.arange(6).reshape(-1, 2), [1, 2]), (np.empty((0, 2), np.int64), [0])]


def _stored(folder: Path) -> Ragged:
    Ragged.write(CHUNKS, folder / "values", folder / "bounds.npy")
    found = Ragged.stored(folder / "values", folder / "bounds.npy", np.int64, (2,))
    assert found is not None
    return found


def test_rows_are_the_same_in_memory_and_in_files(tmp_path: Path) -> None:
    gathered, stored = Ragged.gathered(CHUNKS, np.int64, (2,)), _stored(tmp_path)
    for rows in (gathered, stored, pickle.loads(pickle.dumps(stored))):
        assert [rows[row].tolist() for row in range(len(rows))] == [[[0, 1]], [[2, 3], [4, 5]], []]
        assert rows.sizes.tolist() == [1, 2, 0]


def test_no_rows() -> None:
    assert len(Ragged.gathered([], np.int32, (3,))) == 0
