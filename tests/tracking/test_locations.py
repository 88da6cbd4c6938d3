from pathlib import Path

import pytest

from lightning_hpo.tracking.locations import is_below


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
