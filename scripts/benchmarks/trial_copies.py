"""Creates thousands of trials in seconds, as copies of a study's trials in both databases."""

import shutil
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing

from scripts.benchmarks.demo_study import DemoStudy

__all__ = ["copy_trials"]

# With these final and intermediate values, no new trial is pruned and none logs its model.
_BEST, _WORST = "1.0", "0.0"
_LOW, _WIDTH = (f"json_extract(distribution_json, '$.attributes.{bound}')" for bound in ("low", "high"))
_DRAWN = f"""
    CASE json_extract(distribution_json, '$.name') WHEN 'FloatDistribution'
    THEN {_LOW} + ({_WIDTH} - {_LOW}) * (abs(random()) % 1000000) / 1000000.0 ELSE param_value END
"""
_OPTUNA: Mapping[str, Mapping[str, str]] = {
    "trials": {"number": "copies.number", "state": "'COMPLETE'"},
    "trial_params": {"param_value": _DRAWN},
    "trial_values": {"value": _BEST},
    "trial_intermediate_values": {"intermediate_value": _WORST},
    "trial_user_attributes": {"value_json": "replace(value_json, copies.old_run, copies.run_uuid)"},
    "trial_system_attributes": {},
}
_MLFLOW: Mapping[str, Mapping[str, str]] = {
    "runs": {
        "name": "'trial_' || copies.number",
        "artifact_uri": "replace(artifact_uri, copies.old_run, copies.run_uuid)",
    },
    "params": {},
    "tags": {"value": "CASE key WHEN 'optuna_trial' THEN copies.number ELSE value END"},
    "metrics": {},
    "latest_metrics": {},
}


def copy_trials(study: DemoStudy, total: int) -> None:
    """Copy the rows, runs and folders of a study's trials in turn, until the study has `total` trials.

    Parameters are drawn again, so that the sampler sees as many different points.

    Args:
        study: Study whose trials are all complete.
        total: Number of trials after copying.
    """
    with closing(sqlite3.connect(study.optuna)) as optuna, closing(sqlite3.connect(study.mlflow)) as mlflow:
        own = optuna.execute(
            "SELECT trials.trial_id, json_extract(value_json, '$') FROM trials JOIN trial_user_attributes "
            "ON trials.trial_id = trial_user_attributes.trial_id WHERE key = 'mlflow_run_id' ORDER BY number"
        ).fetchall()
        copies = [
            (number, *own[number % len(own)], own[-1][0] + 1 + number, uuid.uuid4().hex)
            for number in range(len(own), total)
        ]
        for database, tables, key, old in (
            (optuna, _OPTUNA, "trial_id", "old_trial"),
            (mlflow, _MLFLOW, "run_uuid", "old_run"),
        ):
            database.execute("CREATE TEMP TABLE copies(number, old_trial, old_run, trial_id, run_uuid)")
            database.executemany("INSERT INTO copies VALUES (?, ?, ?, ?, ?)", copies)
            for table, changed in tables.items():
                _copy(database, table, key, old, changed)
        # Copies have no model.
        optuna.execute(
            "DELETE FROM trial_user_attributes WHERE key = 'mlflow_model_uri' "
            "AND trial_id IN (SELECT trial_id FROM copies)"
        )
        optuna.commit()
        mlflow.commit()
    for number in range(len(own), total):
        folder = study.trials / f"trial_{number}"
        shutil.copytree(study.trials / f"trial_{number % len(own)}", folder, ignore=shutil.ignore_patterns("*.ckpt"))


def _copy(database: sqlite3.Connection, table: str, key: str, old: str, changed: Mapping[str, str]) -> None:
    """Copy the rows of the copied trials in one table. The database assigns automatic row numbers."""
    listed = database.execute(f"SELECT name, type, pk FROM pragma_table_info('{table}')").fetchall()
    columns = [name for name, kind, place in listed if name == key or not (place and kind == "INTEGER")]
    values = [f"copies.{key}" if name == key else changed.get(name, f"{table}.{name}") for name in columns]
    database.execute(
        f"INSERT INTO {table}({', '.join(columns)}) SELECT {', '.join(values)} "
        f"FROM copies JOIN {table} ON {table}.{key} = copies.{old}"
    )
