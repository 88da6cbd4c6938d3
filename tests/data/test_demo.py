from pathlib import Path

import pytest

from lightning_hpo.data import demo
from lightning_hpo.data.demo import write_demo
from lightning_hpo.exceptions import InputError


def test_demo_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(demo, "write_encoder", lambda folder, seed: asked.append((folder, seed)))
    write_demo(tmp_path / "new" / "folder", posts=20, seed=5)
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["annotations.csv", "criteria.yaml", "posts.csv"]
    assert asked == [(tmp_path / "new" / "folder" / "encoder", 5)]


def test_invalid_demo_arguments_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write_demo(tmp_path, posts=3, seed=-1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["--posts", "--seed"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_demo(tmp_path / "file" / "folder", posts=20, seed=1)
