import subprocess
from pathlib import Path

import pytest

from lightning_hpo.tracking.environment import environment_tags


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_environment_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    tags = environment_tags()
    assert tags["version.torch"].startswith("2.")
    assert "mlflow.source.git.commit" not in tags


def test_environment_in_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    tags = environment_tags()
    assert (tags["mlflow.source.git.commit"], tags["git_dirty"]) == (_git(tmp_path, "rev-parse", "HEAD"), "false")
    (tmp_path / "new").write_text("")
    assert environment_tags()["git_dirty"] == "true"
