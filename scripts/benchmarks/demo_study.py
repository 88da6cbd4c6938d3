"""Studies of the demo corpus whose trials train on one batch per epoch, so that only fixed costs remain."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_hpo.data.demo import write_demo

__all__ = ["CONFIG", "DemoStudy", "between", "data_flags", "seconds", "started", "tuned", "write_data"]

_ROOT = Path(__file__).resolve().parents[2]
CONFIG = _ROOT / "configs" / "demo_evidence.yaml"
_NAME = "benchmark"
_SHORT = {"max_epochs": 2, "limit_train_batches": 1, "limit_val_batches": 1}
_POSTS, _SEED = 300, 17


def write_data(folder: Path) -> None:
    """Write the demo corpus and its encoder."""
    write_demo(folder, posts=_POSTS, seed=_SEED)


def data_flags(data: Path) -> list[str]:
    """Return the flags that name the files of `write_data`."""
    files = {"data.posts": "posts.csv", "data.annotations": "annotations.csv", "data.criteria": "criteria.yaml"}
    return [f"--{flag}={data / name}" for flag, name in {**files, "model.name": "encoder"}.items()]


def seconds(command: list[str]) -> float:
    """Run a command, and return its duration in seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=_ROOT, env=os.environ | {"PYTHONPATH": str(_ROOT)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command within the block, and kill it with its processes at the end."""
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(
        command, cwd=_ROOT, env=environment, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class DemoStudy:
    """Study with its databases and trials.

    Args:
        folder: Folder of the databases and trials; created if missing.
        data: Folder of the data.
    """

    name = _NAME

    def __init__(self, folder: Path, data: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.trials = folder / "outputs" / _NAME
        self.optuna, self.mlflow = folder / "optuna.db", folder / "mlflow.db"
        self.storage, self.tracking_uri = f"sqlite:///{self.optuna}", f"sqlite:///{self.mlflow}"
        self.data = data

    def tune(self, trials: int, *flags: str) -> None:
        """Run the study, in a separate process, until it has this number of trials."""
        study = {"name": _NAME, "n_trials": trials, "outdir": self.trials.parent, "register": "false"}
        study |= {"storage": self.storage, "tracking_uri": self.tracking_uri}
        given = [f"--study.{flag}={value}" for flag, value in study.items()]
        short = [f"--trainer.{flag}={value}" for flag, value in _SHORT.items()]
        self._run(["tune", "--config", str(CONFIG), *data_flags(self.data), *short, *given, *flags])

    def status(self) -> float:
        """Return the duration of `status` in seconds."""
        return self._run(["status", "--study", _NAME, "--storage", self.storage])

    def register(self, trial: int) -> float:
        """Return the duration of `register` in seconds."""
        databases = ["--storage", self.storage, "--tracking_uri", self.tracking_uri]
        return self._run(["register", "--study", _NAME, "--trial", str(trial), *databases])

    def _run(self, arguments: list[str]) -> float:
        return seconds([sys.executable, "-m", "lightning_hpo", *arguments])

    def last_runs(self, count: int) -> list[Run]:
        """Return the most recent runs, oldest first."""
        client = MlflowClient(self.tracking_uri)
        experiment = client.get_experiment_by_name(f"evidence-{_NAME}")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], max_results=count, order_by=["start_time DESC"])
        return list(reversed(found))


@contextmanager
def tuned(trials: int) -> Iterator[DemoStudy]:
    """Provide a study with this number of trials in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name, "data"))
        study = DemoStudy(Path(name, "study"), Path(name, "data"))
        study.tune(trials)
        yield study


def between(runs: list[Run]) -> list[float]:
    """Return the seconds from the end of each trial to the first batch of the next."""
    return [
        (then.info.start_time - before.info.end_time) / 1000 + then.data.metrics["startup_s"]
        for before, then in pairwise(runs)
    ]
