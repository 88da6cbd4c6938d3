"""Short run of `scripts/crowd.py` with sixteen workers on one pair of databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.crowd import crowd
from tests.postgres import Postgres


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    if request.param == "SQLite":
        yield f"sqlite:///{tmp_path}/optuna.db", f"sqlite:///{tmp_path}/mlflow.db"
        return
    server = Postgres(tmp_path / "postgres")
    try:
        yield server.database("optuna"), server.database("mlflow")
    finally:
        server.cleanup()


def test_sixteen_workers_run_without_conflicts(tmp_path: Path, databases: tuple[str, str]) -> None:
    counted = crowd(tmp_path, *databases, workers=16, trials=32)
    assert counted.pop("seconds") > 0
    assert counted == {
        "exit code": 0,
        "complete trials": 32,
        "other trials": 0,
        "runs": 32,
        "lock errors": 0,
        "disagreements": 0,
    }
