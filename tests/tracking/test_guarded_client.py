"""MLflow client that need not trust its server."""

import json
import os
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lightning_hpo.tracking import guarded_client
from lightning_hpo.tracking.errors import cause_of
from lightning_hpo.tracking.tracker import Tracker
from tests.tracking.fake_server import Reply, as_json, fake_server


def test_answer_with_wrong_types_is_an_exception_of_mlflow() -> None:
    wrong = json.dumps({"error_code": ["RESOURCE_DOES_NOT_EXIST"]})
    with fake_server(lambda path: (404, wrong)) as uri, pytest.raises(MlflowException) as raised:
        Tracker(uri).client.get_run("0" * 32)
    assert cause_of(raised.value) == "refused: its answer cannot be read (TypeError)"


def test_method_that_asks_for_page_after_page_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_client, "_MOST_REQUESTS", 5)

    def reply(path: str) -> Reply:
        return as_json(200, metrics=[], next_page_token=path)

    with fake_server(reply) as uri, pytest.raises(MlflowException, match="more than 5 pages"):
        Tracker(uri).client.get_metric_history("0" * 32, "loss")


def test_folders_without_an_end_are_not_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guarded_client, "_MOST_FOLDERS", 5)

    def reply(path: str) -> Reply:
        return as_json(200, files=[{"path": name, "is_dir": True} for name in ("deeper", "wider")])

    with fake_server(reply) as uri, pytest.raises(MlflowException, match="more than 5 folders"):
        get_artifact_repository("mlflow-artifacts:/1", uri).download_artifacts("", str(tmp_path))  # type: ignore[no-untyped-call]


def test_shared_folder_is_read_but_nothing_outside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    (root / "1").mkdir(parents=True)
    target.mkdir()
    (root / "1/whole.txt").write_text("of the run")
    (tmp_path / "secret.txt").write_text("of somebody else")
    (root / "1/link.txt").symlink_to(tmp_path / "secret.txt")
    server = "http://127.0.0.1:1"
    with pytest.raises(MlflowException, match="MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        get_artifact_repository(str(root / "1"), server)
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", str(root))
    repository = get_artifact_repository(f"file://{root}/1", server)
    repository.download_artifacts("whole.txt", str(target))  # type: ignore[no-untyped-call]
    with pytest.raises(MlflowException):
        repository.download_artifacts("link.txt", str(target))  # type: ignore[no-untyped-call]
    assert [path.name for path in target.iterdir()] == ["whole.txt"]
    (root / "1/link.txt").unlink()
    os.mkfifo(root / "1/pipe")
    with pytest.raises(MlflowException):
        repository.download_artifacts("", str(target))  # type: ignore[no-untyped-call]
    for outside in (str(tmp_path), f"{root}/../target", f"{root}x"):
        with pytest.raises(MlflowException, match="MLFLOW_DEFAULT_ARTIFACT_ROOT"):
            get_artifact_repository(outside, server)
