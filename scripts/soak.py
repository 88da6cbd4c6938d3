#!/usr/bin/env python
"""Kill running studies at random moments in random ways, and count the resulting errors (there should be none).

python scripts/soak.py --kills 100 --workers 1 2 4
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_hpo.study.fork_server import keep_cuda_away, start_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the other scripts
if __name__ == "__main__" and sys.argv[1:2] == ["--victim"]:
    keep_cuda_away()

import optuna
import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from mlflow.entities import Experiment
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_hpo.trial.run
from lightning_hpo.cli import main as lightning_hpo_main
from lightning_hpo.storage.attributes import run_id_of
from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import RUN_STATUS
from scripts.power_cut import Recorder
from scripts.proxy import Proxy
from scripts.soak_faults import Disk, bad_weather, cut_power, lock_database, signal_group
from scripts.tracking_server import tracking_server

_ROOT = Path(__file__).resolve().parent.parent
_TRIALS = 12
_EPOCHS = 5
_MOST_DEATHS = 2  # the third fails the trial, as intended
_LIMIT_S = 120.0

_GENTLE = ("study SIGINT", "study SIGTERM", "group SIGTERM", "group SIGHUP")
_CREATION = "study SIGKILL while a database is made"
_POWER_CUT, _FULL_DISK, _LOCKED = "power cut", "full disk", "Optuna's database is locked"
_WEATHER = ("slow", "silent", "refusing", "503", "HTML")
_STORAGE_WAIT_S = 3
_KEPT_MOMENTS, _EVERY = 20, 7
_KINDS = (
    *_GENTLE,
    "study SIGINT twice",
    "study SIGKILL",
    "study SIGKILL before tell",
    "study SIGKILL after tell",
    "study SIGKILL before its run is made",
    "study SIGKILL after its run is made",
    "trial SIGKILL",
    "trial SIGKILL within a checkpoint",
    "trial SIGKILL between a checkpoint's renames",
    "trial SIGKILL after its end",
    "both SIGKILL",
)
_BY_SIGNAL = (*_GENTLE, "study SIGINT twice", "study SIGKILL")
SETTINGS = ("plain", "server", "power")
"""Kinds of studies, in turn: on a small disk; with a tracking server; with a record of what is on the disk."""
_MORE = {
    "plain": (_FULL_DISK, _LOCKED),
    "server": tuple(f"tracker {mode}" for mode in _WEATHER),
    "power": (_POWER_CUT, _POWER_CUT, _POWER_CUT),
}
"""Further kinds of faults for each of them."""


class SoakModule(LightningModule):
    """Small network whose training draws from every random state that resuming must restore.

    Args:
        lr: Learning rate.
        momentum: Momentum, which gives the optimizer a state.
    """

    def __init__(self, lr: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.lr, self.momentum = lr, momentum
        self.example_input_array = torch.zeros(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the product of two numbers."""
        result: Tensor = self.layers(x)
        return result

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the squared error."""
        del batch_idx
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log `val_metric`."""
        del batch_idx
        self.log("val_metric", 1 / (1 + nn.functional.mse_loss(self(batch[0]), batch[1])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=self.momentum)


class SoakData(LightningDataModule):
    """Pairs of numbers and their products."""

    def _loader(self, seed: int) -> DataLoader[tuple[Tensor, ...]]:
        x = torch.randn(256, 2, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x.prod(dim=1, keepdim=True)), batch_size=8)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return 32 training batches."""
        return self._loader(1)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return 32 validation batches."""
        return self._loader(2)


class Plan:
    """The next kill, stored in a file. The study process and its trials poll the file; the one that is due removes it.

    Args:
        path: File of the plan.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self, kind: str, skip: int) -> None:
        """Plan a kill at the `skip`-th opportunity from now on."""
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"kind": kind, "skip": skip}), encoding="utf-8")
        partial.replace(self._path)

    @property
    def open(self) -> bool:
        """Whether the kill is still pending."""
        return self._path.exists()

    def drop(self) -> None:
        """Cancel the kill."""
        self._path.unlink(missing_ok=True)

    def due(self, kind: str, place: int = 10**9) -> bool:
        """Return whether the kill is due here. Only one process gets True."""
        try:
            planned = json.loads(self._path.read_text(encoding="utf-8"))
            if planned["kind"] != kind or place < planned["skip"]:
                return False
            self._path.rename(self._path.with_suffix(f".{os.getpid()}"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return True


class Chaos(Callback):
    """Callback that carries out the plan in a trial process.

    Args:
        plan: File of the plan.
    """

    def __init__(self, plan: str) -> None:
        self._plan = Plan(Path(plan))
        self._study = int(os.environ.get("SOAK_STUDY", "0"))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the functions before or after which the process may be killed."""
        del trainer, pl_module
        _record()
        _around(os, "fsync", self._plan, before="trial SIGKILL within a checkpoint")
        _around(os, "replace", self._plan, before="trial SIGKILL between a checkpoint's renames")
        _around(lightning_hpo.trial.run, "save_outcome", self._plan, after="trial SIGKILL after its end")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Kill this process within an epoch, alone or together with the study process."""
        del trainer, pl_module, batch
        if self._plan.due("trial SIGKILL", batch_idx):
            _die()
        if self._plan.due("both SIGKILL", batch_idx):
            os.kill(self._study, signal.SIGKILL)
            _die()


def _record() -> None:
    """Record what this process writes, if the study is one whose power is cut."""
    if "SOAK_POWER" in os.environ:
        root, kept, *databases = map(Path, json.loads(os.environ["SOAK_POWER"]))
        Recorder(root, databases, kept, _KEPT_MOMENTS, _EVERY).install()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _around(owner: Any, name: str, plan: Plan, before: str = "", after: str = "") -> None:
    call: Callable[..., Any] = getattr(owner, name)

    def called(*arguments: Any, **named: Any) -> Any:
        if before and plan.due(before):
            _die()
        result = call(*arguments, **named)
        if after and plan.due(after):
            _die()
        return result

    setattr(owner, name, called)


def _victim(plan: str, arguments: list[str]) -> int:
    """Run `lightning-hpo tune` as the study process to be killed."""
    start_server(forked=True)  # as the command does when it runs alone
    _record()
    os.environ["SOAK_STUDY"] = str(os.getpid())
    _around(optuna.Study, "tell", Plan(Path(plan)), "study SIGKILL before tell", "study SIGKILL after tell")
    moments = ("study SIGKILL before its run is made", "study SIGKILL after its run is made")
    _around(Tracker, "start_run", Plan(Path(plan)), *moments)
    return lightning_hpo_main(["tune", *arguments])


class Soak:
    """Studies that are killed, and one uninterrupted reference study.

    Args:
        folder: Output folder.
        seed: Seed of the kinds and moments of kills.
        settings: Kinds of studies, in turn.
        trials: Number of trials of each study.

    Attributes:
        proxy: Proxy in front of a tracking server, for the setting `server`.
        disk: A small disk for the setting `plain`, or None if there is none.
    """

    def __init__(self, folder: Path, seed: int, settings: Sequence[str] = SETTINGS, trials: int = _TRIALS) -> None:
        self.folder, self.draw, self.settings, self._trials = folder, random.Random(seed), settings, trials
        self.proxy: Proxy | None = None
        self.disk: Disk | None = None
        self.plan = Plan(folder / "plan.json")
        self.kinds: Counter[str] = Counter()
        self._bags: dict[str, list[str]] = {setting: [] for setting in settings}
        self._config = folder / "soak.yaml"
        chaos = {"class_path": "scripts.soak.Chaos", "init_args": {"plan": str(folder / "plan.json")}}
        trainer = {"max_epochs": _EPOCHS, "accelerator": "cpu", "num_sanity_val_steps": 0, "callbacks": [chaos]}
        config = {
            "model": {"class_path": "scripts.soak.SoakModule"},
            "data": {"class_path": "scripts.soak.SoakData"},
            "trainer": trainer,
            "search_space": {
                "model.lr": {"low": 1.0e-3, "high": 0.1, "log": True},
                "model.momentum": {"low": 0.0, "high": 0.9},
            },
        }
        self._config.write_text(yaml.safe_dump(config), encoding="utf-8")

    def study(self, name: str, setting: str, workers: int) -> "SoakStudy":
        """Return a new study."""
        parent = self.folder if self.disk is None or setting != "plain" else self.disk.folder
        address = f"http://127.0.0.1:{self.proxy.port}" if setting == "server" and self.proxy else None
        return SoakStudy(name, setting, workers, self._trials, parent / name, self._config, self.plan, address)

    def kill(self, study: "SoakStudy", kills: int) -> Iterator[str]:
        """Kill one study until it is complete or has been killed `kills` times; then run it to completion."""
        done, kind = 0, ""
        process = study.start()
        while done < kills:
            died = process.poll() is not None
            if died:
                if process.returncode == 0:
                    break
                process = study.start()
            kind = _CREATION if done == 0 else self._choose(study, died or kind.startswith("trial"))
            if self._carry_out(kind, study, process):
                done += 1
                self.kinds[kind] += 1
                yield kind
        self.plan.drop()
        if process.wait() != 0 or study.setting == "server":  # also what a server did not accept at the end
            study.finish()

    def _choose(self, study: "SoakStudy", died: bool) -> str:
        open_trials = [trial for trial in study.trials() if not trial.state.is_finished()]
        # The last kill may not be in the database yet: it counts for every trial that is running there.
        deaths = [t.user_attrs.get("deaths", 0) + (died and t.state == TrialState.RUNNING) for t in open_trials]
        if any(number >= _MOST_DEATHS for number in deaths):
            return self.draw.choice(_GENTLE)
        bag = self._bags[study.setting]
        if not bag:  # so that each kind has its turn
            bag += [kind for kind in (*_GENTLE, *_KINDS, *_MORE[study.setting]) if kind != _FULL_DISK or self.disk]
            self.draw.shuffle(bag)
        return bag.pop()

    def _carry_out(self, kind: str, study: "SoakStudy", process: subprocess.Popen[bytes]) -> bool:
        if kind == _CREATION:
            return study.kill_while_made(process, self.draw)
        if kind in _BY_SIGNAL or kind in _MORE[study.setting]:
            return study.has_begun_to_write(process) and self._fault(kind, study, process)
        self.plan.make(kind, self.draw.randrange(32))
        end = time.monotonic() + _LIMIT_S
        while self.plan.open and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        carried_out = not self.plan.open
        self.plan.drop()
        if kind.startswith(("study", "both")) and carried_out:
            process.wait()
        return carried_out

    def _fault(self, kind: str, study: "SoakStudy", process: subprocess.Popen[bytes]) -> bool:
        """Carry out a kind that comes from outside, at a random moment."""
        time.sleep(self.draw.uniform(0.0, 1.5))
        if process.poll() is not None:
            return False
        if kind == _POWER_CUT:
            return cut_power(process, study.root, study.databases, study.kept, self.draw)
        if kind == _LOCKED:
            return lock_database(study.databases[0], self.draw.choice((1, 2 * _STORAGE_WAIT_S)))
        if kind == _FULL_DISK and self.disk is not None:
            self.disk.fill(process)
            return True
        if kind.startswith("tracker") and self.proxy is not None:
            bad_weather(self.proxy, kind.split()[1], self.draw.uniform(1.0, 6.0))
            return True
        number = getattr(signal, kind.split()[1])
        if kind.startswith("group"):
            signal_group(process, number)
            return True
        process.send_signal(number)
        if kind.endswith("twice"):
            time.sleep(self.draw.uniform(0.0, 0.1))
            process.send_signal(number)
        process.wait()
        return True


class SoakStudy:
    """One study with databases of its own.

    Args:
        name: Its name.
        setting: One of `SETTINGS`.
        workers: Number of trials at the same time.
        trials: Number of trials in all.
        folder: Folder of its databases and trials.
        config: Its config.
        plan: The plan of kills.
        server: Address of its tracking server; None for a file.
    """

    def __init__(
        self,
        name: str,
        setting: str,
        workers: int,
        trials: int,
        folder: Path,
        config: Path,
        plan: Plan,
        server: str | None,
    ) -> None:
        self.name, self.setting, self._workers, self._trials, self._folder = name, setting, workers, trials, folder
        self._config, self._plan = config, plan
        folder.mkdir(parents=True)
        self.databases = [folder / "optuna.db", folder / "mlflow.db"]
        self.root, self.kept = folder / "outputs" / name, config.parent / f"{name}-moments"
        self.storage = f"sqlite:///{self.databases[0]}"
        self._tracking_uri = server or f"sqlite:///{self.databases[1]}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start `tune`."""
        study = {
            "name": self.name,
            "workers": self._workers,
            "n_trials": self._trials,
            "outdir": self.root.parent,
            "storage": self.storage,
            "storage_wait": _STORAGE_WAIT_S,
            "tracking_uri": self._tracking_uri,
            "register": "false",
        }
        arguments = ["--config", str(self._config), *(f"--study.{flag}={value}" for flag, value in study.items())]
        command = [sys.executable, str(Path(__file__).resolve()), "--victim", str(self._config.parent / "plan.json")]
        environment = os.environ | {"PYTHONPATH": str(_ROOT), "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
        if self.setting == "power":
            paths = [self.root, self.kept, *self.databases]
            environment |= {"SOAK_POWER": json.dumps([str(path) for path in paths])}
        with (self._config.parent / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *arguments], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def finish(self) -> None:
        """Run the study to completion."""
        self._plan.drop()
        code = self.start().wait()
        if code != 0:
            log = self._config.parent / f"{self.name}.log"
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:])
            raise SystemExit(f"{self.name}: tune exited with code {code}; the end of {log}:\n{end}")

    def kill_while_made(self, process: subprocess.Popen[bytes], draw: random.Random) -> bool:
        """Kill the study a moment after one of its database files appears."""
        awaited = draw.choice(self.databases[: 1 if self.setting == "server" else 2])
        end = time.monotonic() + _LIMIT_S
        while not awaited.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        return True

    def has_begun_to_write(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until a trial has written to its outbox. Return whether the process still runs."""
        before = {path: path.stat().st_size for path in self._outboxes()}
        end = time.monotonic() + _LIMIT_S
        while process.poll() is None and time.monotonic() < end:
            if any(size != before.get(path) for path, size in self._sizes()):
                return True
            time.sleep(0.005)
        return False

    def _outboxes(self) -> list[Path]:
        return [path for path in self.root.glob("trial_*/outbox.jsonl") if path.exists()]

    def _sizes(self) -> Iterator[tuple[Path, int]]:
        for path in self._outboxes():
            with contextlib.suppress(FileNotFoundError):  # it has been sent meanwhile
                yield path, path.stat().st_size

    def trials(self) -> list[FrozenTrial]:
        """Return the trials so far."""
        if not self.databases[0].exists():
            return []
        try:
            return optuna.load_study(study_name=self.name, storage=self.storage).get_trials(deepcopy=False)
        except (KeyError, RuntimeError, SQLAlchemyError, StorageInternalError):  # it is being made, or locked
            return []

    def count(self, reference: list[FrozenTrial] | None) -> dict[str, int]:
        """Count the errors of the finished study."""
        study, tracker = optuna.load_study(study_name=self.name, storage=self.storage), Tracker(self._tracking_uri)
        trials = study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        experiment = tracker.client.get_experiment_by_name(f"soakmodule-{self.name}")
        runs = {} if experiment is None else {run.run_id: run for run in tracker.runs(experiment.experiment_id)}
        statuses = Counter(
            run_id_of(study, trial) in runs
            and runs[str(run_id_of(study, trial))].status == RUN_STATUS[trial.state]
            and runs[str(run_id_of(study, trial))].tags["optuna_trial"] == str(trial.number)
            for trial in trials
        )
        found = {
            "trials lost": abs(self._trials - len(ended)) + len(trials) - len(ended),
            "trials doubled": len(trials) - len({tuple(sorted(trial.params.items())) for trial in trials}),
            "disagreements": statuses[False]
            + abs(len(runs) - len(trials))
            + len(Reconciliation(study, tracker, alive=False).run(dry_run=True)),
            "failed though unharmed": sum(trial.state == TrialState.FAIL for trial in trials),
            "models doubled": _doubled_models(tracker, experiment),
            "steps doubled or missing": sum(_wrong_steps(tracker, str(run_id_of(study, t)), t) for t in ended),
        }
        if reference is not None:
            different = sum(_differs(*pair) for pair in zip(trials, reference, strict=False))
            found["differences"] = different + abs(len(trials) - len(reference))
        return found


def _doubled_models(tracker: Tracker, experiment: Experiment | None) -> int:
    if experiment is None:
        return 0
    models = tracker.client.search_logged_models([experiment.experiment_id])
    return len(models) - len({model.source_run_id for model in models})


def _wrong_steps(tracker: Tracker, run_id: str, trial: FrozenTrial) -> int:
    expected = sorted(trial.intermediate_values.items())
    history = tracker.client.get_metric_history(run_id, "val_metric")
    points = sorted((point.step, point.value) for point in history)
    once = len(tracker.client.get_metric_history(run_id, "runtime_s")) == 1
    return int([step for step, _ in points] != [step for step, _ in expected]) + int(not once)


def _differs(trial: FrozenTrial, reference: FrozenTrial) -> bool:
    if (trial.number, trial.params, trial.state) != (reference.number, reference.params, reference.state):
        return True
    values = trial.intermediate_values | {-1: trial.value or 0.0}
    expected = reference.intermediate_values | {-1: reference.value or 0.0}
    return values.keys() != expected.keys() or any(abs(values[epoch] - expected[epoch]) > 1e-6 for epoch in values)


def soak(
    folder: Path,
    kills: int,
    workers: list[int],
    seed: int,
    say: Callable[[str], None],
    settings: Sequence[str] = SETTINGS,
    trials: int = _TRIALS,
) -> dict[str, int]:
    """Kill studies until each number of workers has had enough kills, and count the errors.

    Args:
        folder: Output folder.
        kills: Kills for each number of workers.
        workers: Numbers of trials at the same time.
        seed: Seed of the kinds and moments of kills.
        say: Called with progress lines.
        settings: Kinds of studies, in turn (see `SETTINGS`).
        trials: Number of trials of each study.

    Returns:
        Number of kills by kind, and number of errors by kind. All error counts should be 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        session = Soak(folder, seed, settings, trials)
        if "server" in settings:
            session.proxy = Proxy(stack.enter_context(tracking_server(folder)))
            stack.enter_context(session.proxy.running())
        if "plain" in settings:
            disk = Disk(folder / "disk")
            if stack.enter_context(disk.mounted()):
                session.disk = disk
            else:
                say("no disk can be mounted (it needs root): the kind `full disk` is left out")
        return _soak(session, kills, workers, say)


def _soak(session: Soak, kills: int, workers: list[int], say: Callable[[str], None]) -> dict[str, int]:
    reference = None
    if 1 in workers:
        uninterrupted = session.study("uninterrupted", "", 1)
        uninterrupted.finish()
        reference = uninterrupted.trials()
    total: Counter[str] = Counter()
    for count in workers:
        done = round_ = 0
        while done < kills:
            study = session.study(f"soak-{count}-{round_}", session.settings[round_ % len(session.settings)], count)
            for kind in session.kill(study, kills - done):
                done += 1
                say(f"{count} workers, kill {done} of {kills}: {kind}")
            found = study.count(reference if count == 1 else None)
            say(f"{study.name}: " + ", ".join(f"{what} {number}" for what, number in found.items()))
            total.update(found)
            round_ += 1
    return {"kills": sum(session.kinds.values()), **{f"  {k}": n for k, n in session.kinds.items()}, **total}


def main() -> int:
    """Run the test, print a table, and return 1 if there are errors."""
    if sys.argv[1:2] == ["--victim"]:
        return _victim(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description="Kill running studies at random, and count the errors.")
    parser.add_argument("--kills", type=int, default=100, help="kills for each number of workers; default: %(default)s")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of trials at the same time; default: 1 2 4"
    )
    parser.add_argument("--seed", type=int, default=17, help="seed of the kills; default: %(default)s")
    parser.add_argument("--folder", help="output folder; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary).absolute()
        began = time.monotonic()
        counted = soak(folder, given.kills, given.workers, given.seed, lambda line: print(line, flush=True))
    table = Table("what", "count", box=None)
    for what, number in counted.items():
        table.add_row(what, str(number))
    table.add_row("minutes", f"{(time.monotonic() - began) / 60:.1f}")
    Console().print(table)
    wrong = (
        *("trials lost", "trials doubled", "models doubled", "disagreements", "failed though unharmed"),
        *("steps doubled or missing", "differences"),
    )
    return int(any(counted.get(what) for what in wrong))


if __name__ == "__main__":
    sys.exit(main())
