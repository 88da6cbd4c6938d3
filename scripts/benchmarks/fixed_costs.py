"""Measures the fixed costs: `--help`, and what lies between the end of a trial and the first batch of the next.

All in one run on one machine; what counts are the ratios to what no program can do without: an empty Python, and
loading the encoder's weights.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from mlflow import MlflowClient
from rich.table import Table

from lightning_hpo.agents.encoder import load_encoder
from lightning_hpo.cli import main as lightning_hpo

__all__ = ["table"]

_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo_evidence.yaml"
_RUNS = 5
_TRIALS = 6


def table() -> Table:
    """Measure; a row a cost."""
    with tempfile.TemporaryDirectory() as name:
        figures = _help() | _between_trials(Path(name))
    shown = Table("what", "median s", "of", "ratio", box=None)
    for what, (seconds, reference, ratio) in figures.items():
        shown.add_row(what, f"{seconds:.3f}", reference, f"{ratio:.2f}")
    return shown


def _help() -> dict[str, tuple[float, str, float]]:
    empty = _median([sys.executable, "-c", "pass"])
    shown = _median([sys.executable, "-m", "lightning_hpo", "--help"])
    return {"lightning-hpo --help": (shown, f"an empty Python, {empty:.3f} s", shown / empty)}


def _median(command: list[str]) -> float:
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _between_trials(folder: Path) -> dict[str, tuple[float, str, float]]:
    lightning_hpo(["demo-data", str(folder / "data")])
    data = [f"--data.{name}={folder}/data/{name}.{kind}" for name, kind in _FILES.items()]
    databases = ["--study.storage", f"sqlite:///{folder}/optuna.db", "--study.tracking_uri", f"sqlite:///{folder}/m.db"]
    study = ["--study.name", "benchmark", "--study.n_trials", str(_TRIALS), "--study.outdir", f"{folder}/outputs"]
    pruner = ["--study.pruner", "optuna.pruners.NopPruner", "--study.register", "false", "--trainer.max_epochs", "1"]
    encoder = ["--model.name", f"{folder}/data/encoder"]
    lightning_hpo(["tune", "--config", str(_CONFIG), *data, *encoder, *databases, *study, *pruner])
    gap = statistics.median(_gaps(f"sqlite:///{folder}/m.db"))
    weights = _weights(f"{folder}/data/encoder")
    of = f"loading the encoder, {weights:.3f} s"
    return {"end of a trial to the first batch of the next": (gap, of, gap / weights)}


_FILES = {"posts": "csv", "annotations": "csv", "criteria": "yaml"}


def _gaps(uri: str) -> list[float]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("evidence-benchmark")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time"])
    return [
        (then.info.start_time - before.info.end_time) / 1000 + then.data.metrics["startup_s"]
        for before, then in pairwise(runs)
    ]


def _weights(folder: str) -> float:
    seconds = []
    for _ in range(_RUNS + 1):
        start = time.perf_counter()
        load_encoder(folder)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
