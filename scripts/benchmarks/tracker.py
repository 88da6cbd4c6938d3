"""Measures what a slow tracking server costs the training: epochs of two workers, and answers to reports.

The trials wait instead of computing, so that only what they wait for can differ.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from optuna.trial import TrialState
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_hpo.callbacks.pruning import PruningCallback
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.study_folder import StudyFolder, write_whole
from lightning_hpo.tracking.entries import EntryFile, LogMetrics
from scripts.benchmarks.demo_study import started
from scripts.benchmarks.figures import Figures, Ratio
from scripts.proxy import Proxy
from scripts.tracking_server import tracking_server

__all__ = ["Clock", "WaitingData", "WaitingModule", "figures"]

_DELAY_S, _UNSENT = 3.0, 1_600
_WORKERS, _EPOCHS, _BATCHES, _BATCH_S = 2, 12, 50, 0.02
_MOST_RATIO, _MOST_MS = 1.05, 20.0
_NAME = "tracker"


class WaitingModule(LightningModule):
    """Network of one weight, each of whose training batches takes .02 s."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr, self.layer = lr, nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Wait, and return a loss."""
        del batch_idx
        time.sleep(_BATCH_S)
        loss: Tensor = self.layer(batch).square().mean()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log `val_metric`."""
        del batch_idx
        self.log("val_metric", self.layer(batch).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class WaitingData(LightningDataModule):
    """Numbers."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return the training batches."""
        return DataLoader(torch.ones(_BATCHES, 1))  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return one validation batch."""
        return DataLoader(torch.ones(1, 1))  # type: ignore[arg-type]


class Clock(Callback):
    """Writes the seconds of each epoch and of each answer to a report.

    Args:
        folder: Folder of the files, one a trial.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._starts: list[float] = []
        self._answers: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure each report from now on."""
        del pl_module
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PruningCallback):
                callback._trial.report = self._measured(callback._trial.report)

    def _measured(self, report: Any) -> Any:
        def measured(value: float, step: int) -> None:
            began = time.perf_counter()
            report(value, step)
            self._answers.append(time.perf_counter() - began)

        return measured

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the start of an epoch."""
        del trainer, pl_module
        self._starts.append(time.perf_counter())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        del trainer, pl_module
        epochs = [then - start for start, then in zip(self._starts, self._starts[1:], strict=False)]
        text = json.dumps({"epochs": epochs, "answers": self._answers})
        write_whole(self._folder / f"{os.getpid()}.json", text)


def figures() -> Figures:
    """Return seconds of an epoch and of an answer: a quick server, and a slow one with unsent trials."""
    with tempfile.TemporaryDirectory() as name, tracking_server(Path(name)) as port:
        proxy = Proxy(port)
        with proxy.running():
            quick = _tune(Path(name), proxy, "quick", _WORKERS)
            _leave_unsent(Path(name))
            proxy.mode, proxy.delay_s = "slow", _DELAY_S
            slow = _tune(Path(name), proxy, "slow", 2 * _WORKERS + _UNSENT)
    columns = ("quick server", f"{_DELAY_S:g} s a packet, {_UNSENT:,} unsent trials")
    rows = {
        "epoch, s": [statistics.median(found["epochs"]) for found in (quick, slow)],
        "answer to a report, ms (median)": [1000 * statistics.median(found["answers"]) for found in (quick, slow)],
        "answer to a report, ms (slowest)": [1000 * max(found["answers"]) for found in (quick, slow)],
    }
    epoch, answer, _ = rows.values()
    return Figures(
        {what: dict(zip(columns, values, strict=True)) for what, values in rows.items()},
        [
            Ratio("epoch: slow server ÷ quick", epoch[1] / epoch[0], most=_MOST_RATIO),
            Ratio("answer to a report with a slow server, ms", answer[1], most=_MOST_MS),
        ],
    )


def _tune(folder: Path, proxy: Proxy, part: str, trials: int) -> dict[str, list[float]]:
    """Run the study until it has this number of trials, and return what its clocks have measured."""
    clocks = folder / part
    clocks.mkdir()
    config = {
        "model": {"class_path": "scripts.benchmarks.tracker.WaitingModule"},
        "data": {"class_path": "scripts.benchmarks.tracker.WaitingData"},
        "trainer": {
            "max_epochs": _EPOCHS,
            "accelerator": "cpu",
            "callbacks": [
                {"class_path": "scripts.benchmarks.tracker.Clock", "init_args": {"folder": str(clocks)}},
            ],
        },
        "search_space": {"model.lr": {"low": 0.01, "high": 0.1}},
    }
    path = folder / f"{part}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    study = {
        "name": _NAME,
        "n_trials": trials,
        "workers": _WORKERS,
        "mode": "max",
        "register": "false",
        "outdir": folder / "outputs",
        "storage": _storage(folder),
        "tracking_uri": f"http://127.0.0.1:{proxy.port}",
        "sampler": "optuna.samplers.RandomSampler",
        "pruner": "optuna.pruners.NopPruner",
    }
    flags = [f"--study.{flag}={value}" for flag, value in study.items()]
    with started([sys.executable, "-m", "lightning_hpo", "tune", "--config", str(path), *flags]) as process:
        while len(list(clocks.glob("*.json"))) < _WORKERS:
            if process.poll() is not None:
                raise SystemExit(f"the study has exited with {process.returncode}")
            time.sleep(0.1)
        if proxy.mode == "through":  # with a slow server, it would send for hours
            process.wait()
    found: dict[str, list[float]] = {"epochs": [], "answers": []}
    for file in clocks.glob("*.json"):
        for what, values in json.loads(file.read_text(encoding="utf-8")).items():
            found[what] += values
    return found


def _storage(folder: Path) -> str:
    return f"sqlite:///{folder}/optuna.db"


def _leave_unsent(folder: Path) -> None:
    """Add finished trials whose last entry the server has not received."""
    study = optuna.load_study(study_name=_NAME, storage=_storage(folder))
    [first, *_] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    copy = optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        value=-1.0,
        params=first.params,
        distributions=first.distributions,
        user_attrs={TrialKey.RUN_ID: first.user_attrs[TrialKey.RUN_ID]},
    )
    numbers = range(len(study.trials), len(study.trials) + _UNSENT)
    study.add_trials([copy] * _UNSENT)
    for number in numbers:
        EntryFile(StudyFolder(folder / "outputs" / _NAME).trial(number)).append(LogMetrics({"late": 1.0}, step=number))
