from pathlib import Path

import pytest

from lightning_hpo.tracking.locations import is_below, location_problem


@pytest.mark.parametrize(
    ("location", "root", "below"),
    [
        ("mlflow-artifacts:/1/models/m-1/artifacts", "mlflow-artifacts:/1", True),
        ("mlflow-artifacts:/1/models/m-1/artifacts", "mlflow-artifacts:/1/", True),
        ("mlflow-artifacts:/1", "mlflow-artifacts:/1", False),
        ("mlflow-artifacts:/12/models", "mlflow-artifacts:/1", False),
        ("mlflow-artifacts:/1/../2/models", "mlflow-artifacts:/1", False),
        ("s3://bucket/1/models", "s3://other/1", False),
        ("/home/me", "mlflow-artifacts:/1", False),
        ("/home/me", "/home", False),
        ("file:///home/me", "file:///home", False),
        ("file://elsewhere/home/me", "/home", False),
        ("", "", False),
    ],
)
def test_location_that_a_server_names(location: str, root: str, below: bool) -> None:
    assert is_below(location, root, None) is below


@pytest.mark.parametrize(
    ("location", "root", "below"),
    [
        ("{own}/mlruns/study/models/m-1", "{own}/mlruns/study", True),
        ("file://{own}/mlruns/study/models/m-1", "{own}/mlruns/study", True),
        ("{own}/mlruns/study/models/../../other", "{own}/mlruns/study", False),
        ("{own}/mlruns/study/link/m-1", "{own}/mlruns/study", False),
        ("{own}/mlruns/study", "{own}/mlruns/study", False),
        ("{own}/data", "{own}", False),
    ],
)
def test_location_on_this_machine(tmp_path: Path, location: str, root: str, below: bool) -> None:
    (tmp_path / "mlruns/study").mkdir(parents=True)
    (tmp_path / "mlruns/study/link").symlink_to(tmp_path)
    named = location.format(own=tmp_path), root.format(own=tmp_path)
    assert is_below(*named, tmp_path / "mlruns") is below


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("mlflow-artifacts:/1", True),
        ("mlflow-artifacts://localhost:5000/1", True),
        ("http://localhost:5000/api/2.0/mlflow-artifacts/artifacts/1", True),
        ("s3://bucket/1", True),
        ("mlflow-artifacts://localhost:5001/1", False),
        ("https://localhost:5000/1", True),
        ("http://elsewhere/1", False),
        ("sftp://elsewhere/1", False),
        ("/srv/artifacts/1", False),
        ("file:///srv/artifacts/1", False),
        ("", False),
    ],
)
def test_server_may_name_itself_and_cloud_stores(location: str, allowed: bool) -> None:
    assert (location_problem(location, "http://localhost:5000") == "") is allowed
    assert location_problem(location, "sqlite:///mlflow.db") == ""


@pytest.mark.parametrize(
    ("root", "location", "allowed"),
    [
        ("/srv/artifacts", "file:///srv/artifacts/1", True),
        ("/srv/artifacts", "/srv/artifacts/../1", False),
        ("file:///srv/artifacts", "/srv/artifacts", True),
        ("mlflow-artifacts://store:5001/", "mlflow-artifacts://store:5001/1", True),
        ("mlflow-artifacts://store:5001/", "mlflow-artifacts://store:5002/1", False),
        ("mlflow-artifacts://store:5001/", "/srv", False),
        ("sftp://store/x", "sftp://store/x/1", True),
    ],
)
def test_location_in_the_root_that_the_user_names(
    monkeypatch: pytest.MonkeyPatch, root: str, location: str, allowed: bool
) -> None:
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", root)
    assert (location_problem(location, "http://localhost:5000") == "") is allowed
