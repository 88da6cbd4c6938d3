"""Databases in the test's own folder, the foreign modules as a config, and whole fits of them."""

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.storage.connection import open_storage
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from tests.study_sandbox import StudySandbox, ready_sandbox

Copy = Callable[[Path, str], str]


# A file that takes minutes, begun last, would leave the other processes idle.
_LONGEST = (
    *("test_tune", "integration/test_docs", "integration/test_soak", "integration/test_no_dead_parameter"),
    *("refit/test_combined_models", "integration/test_long_posts"),
    *("integration/test_tracking_server", "integration/test_plan", "refit/test_refit", "integration/test_ui"),
    *("integration/test_hostile_server", "integration/test_crowd", "study/test_workers", "registry/test_verify"),
    *("integration/test_honesty", "integration/test_power_cut", "report/test_write", "serving/test_flavor"),
    *("study/test_ownership", "integration/test_distribution"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; pytest-xdist hands out whole files in this order."""
    ranks = {f"tests/{name}.py": rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.location[0], len(ranks)))


@pytest.fixture(autouse=True)
def _no_databases_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def _migrations_are_read_once() -> Iterator[None]:
    """Keep the migrations of Optuna and MLflow, which they read again whenever they open a database."""
    read = ScriptDirectory.from_config

    @functools.cache
    def read_once(place: str | None) -> ScriptDirectory:
        config = Config()
        config.set_main_option("script_location", str(place))
        return read(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ScriptDirectory, "from_config", lambda config: read_once(config.get_main_option("script_location"))
        )
        yield


@pytest.fixture(scope="session")
def ready_databases(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Gives the URL of a copy of an empty database: making the tables anew would take seconds a test."""
    folder = tmp_path_factory.mktemp("databases")
    with contextlib.chdir(folder):  # MLflow puts the default experiment's folder wherever it is called
        Tracker(f"sqlite:///{folder}/mlflow.db").experiment("Default")
    open_storage(DatabaseUrl(f"sqlite:///{folder}/optuna.db", "--study.storage"))

    def copy(target: Path, name: str) -> str:
        with sqlite3.connect(folder / name) as ready, sqlite3.connect(target / name) as made:
            ready.backup(made)
        ready.close()
        made.close()
        return f"sqlite:///{target / name}"

    return copy


@pytest.fixture
def tracking_uri(ready_databases: Copy, tmp_path: Path) -> str:
    return ready_databases(tmp_path, "mlflow.db")


@pytest.fixture
def tracker(tracking_uri: str) -> Tracker:
    return Tracker(tracking_uri)


@pytest.fixture
def run_id(tracker: Tracker) -> str:
    return tracker.start_run(tracker.experiment("criteria-first"), "trial_0", {})


@pytest.fixture
def outbox(tracker: Tracker, run_id: str, tmp_path: Path) -> Outbox:
    return Outbox(TrialFolder(tmp_path / "trial_0"), tracker, run_id)


@pytest.fixture
def storage_url(ready_databases: Copy, tmp_path: Path) -> str:
    return ready_databases(tmp_path, "optuna.db")


@pytest.fixture
def study(storage_url: str) -> optuna.Study:
    return optuna.create_study(
        study_name="first",
        storage=open_storage(DatabaseUrl(storage_url, "--study.storage")),
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready_databases: Any) -> StudySandbox:
    return ready_sandbox(tmp_path, monkeypatch, ready_databases)


@pytest.fixture
def foreign_config() -> dict[str, Any]:
    return {
        "model": {"class_path": "tests.foreign.ForeignModule"},
        "data": {"class_path": "tests.foreign.ForeignData"},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False},
    }


@pytest.fixture
def quiet_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a Trainer that writes nothing outside the test's folder."""

    def make(**options: Any) -> Trainer:
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        if any(isinstance(callback, Checkpoint) for callback in options.get("callbacks", ())):
            del quiet["enable_checkpointing"]
        return Trainer(**{**quiet, "accelerator": "cpu", "default_root_dir": tmp_path, **options})

    return make
