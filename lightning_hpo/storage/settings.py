"""Settings of a study, filled in by the `study` section of a config."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from lightning_hpo.databases import DatabaseUrl, default_storage, default_tracking_uri

__all__ = ["StudySettings"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass
class StudySettings:
    """A study: what is searched for, how long, and where it is kept.

    Args:
        name: Name of the study; letters, digits, dots, dashes and underscores. Needed by `tune`.
        n_trials: Trials that shall be complete or pruned in all, those of earlier calls included.
        workers: Trials that train at the same time, each in a process of its own.
        devices: Graphics gpus whose number a trial's process may get, one each, such as [0, 1]; auto is all of them.
        per_device: Trials that train on a gpu at the same time.
        timeout: Seconds after which the running trials are parked and the command ends; the next call goes on.
        from_: Another study of this database to start from: after the defaults, its best points come first.
        queue: How many of the best points of the study that this one starts from are tried first.
        narrow: Share of its range, above 0 and up to 1, that a flag keeps around that study's best value.
        fix: Flags that have that study's best value in every trial, and are not searched.
        seed: Seed of the sampler; every trial's draw follows from it and the trial's number.
        monitor: The logged metric that is optimized.
        mode: Whether more (max) or less (min) of the metric is better.
        sampler: Optuna sampler by class path; the default is multivariate grouped TPE.
        pruner: Optuna pruner by class path; the default prunes below the median of the trials before.
        outdir: Folder of checkpoints and logs: OUTDIR/STUDY/trial_N/.
        keep: How many of the best trials keep their weights.
        checkpoint_minutes: Minutes after which a trial writes down its state within an epoch.
        max_failures: Failed trials in a row after which the study stops.
        halve_on_oom: On out of memory, run the same trial again with half the batch and twice the accumulation.
        register: Register the best trial's model when the study has all its trials.
        storage: Optuna's database, an SQLAlchemy URL. Default: OPTUNA_STORAGE or sqlite:///_optuna/dataaug.db.
        storage_wait: Seconds to wait for Optuna's database when it does not answer.
        tracking_uri: MLflow's database or server. Default: MLFLOW_TRACKING_URI or sqlite:///mlflow.db.
    """

    name: str | None = None
    n_trials: int = 20
    workers: int = 1
    devices: list[int] | Literal["auto"] = "auto"
    per_device: int = 1
    timeout: float | None = None
    from_: str | None = None
    queue: int = 3
    narrow: float | None = None
    fix: list[str] = field(default_factory=list)
    seed: int = 17
    monitor: str = "val_metric"
    mode: Literal["max", "min"] = "max"
    sampler: BaseSampler | None = None
    pruner: BasePruner | None = None
    outdir: str = "outputs"
    keep: int = 3
    checkpoint_minutes: float = 10.0
    max_failures: int = 3
    halve_on_oom: bool = True
    register: bool = True
    storage: str | None = None
    storage_wait: float = 600.0
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        """Fill in what the environment names."""
        self.storage = self.storage or default_storage()
        self.tracking_uri = self.tracking_uri or default_tracking_uri()

    @property
    def folder(self) -> Path:
        """Folder of the study's trials."""
        return Path(self.outdir) / str(self.name)

    @property
    def storage_url(self) -> DatabaseUrl:
        """Optuna's database.

        Raises:
            InputError: If it is not a URL.
        """
        return DatabaseUrl(str(self.storage), "--study.storage")

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The mode in Optuna's words."""
        return "maximize" if self.mode == "max" else "minimize"

    def problems(self) -> list[str]:
        """Every setting that cannot be used, a line each."""
        found = []
        if not self.name:
            found.append("--study.name: needed; give the study a name, such as --study.name first-search")
        elif not _NAME.fullmatch(self.name):
            found.append(
                f"--study.name: got {self.name!r}; use letters, digits, '.', '-' and '_' (it names a folder too)"
            )
        for flag in ("n_trials", "workers", "per_device", "keep", "max_failures"):
            if getattr(self, flag) < 1:
                found.append(f"--study.{flag}: got {getattr(self, flag)}; use 1 or more")
        if self.devices != "auto" and (not self.devices or len(set(self.devices)) < len(self.devices)):
            found.append(f"--study.devices: got {self.devices}; name each gpu once, or none: auto")
        if not 0 <= self.seed < 2**32:
            found.append(f"--study.seed: got {self.seed}; use 0 to {2**32 - 1}")
        if not self.checkpoint_minutes > 0:
            found.append(f"--study.checkpoint_minutes: got {self.checkpoint_minutes}; use minutes above 0")
        if self.timeout is not None and self.timeout <= 0:
            found.append(f"--study.timeout: got {self.timeout}; use seconds above 0, or leave it out")
        if not 0 <= self.storage_wait < math.inf:
            found.append(f"--study.storage_wait: got {self.storage_wait}; use seconds, 0 or more")
        return found + self._warm_start_problems()

    def _warm_start_problems(self) -> list[str]:
        found = [] if self.queue >= 0 else [f"--study.queue: got {self.queue}; use 0 or more"]
        if self.narrow is not None and not 0 < self.narrow <= 1:
            found.append(f"--study.narrow: got {self.narrow}; use a share of each range, above 0 and up to 1")
        given = [f"--study.{flag}" for flag in ("narrow", "fix") if getattr(self, flag)]
        if given and self.from_ is None:
            found.append(f"{', '.join(given)}: by the best of which study? Name it with --study.from")
        if self.from_ is not None and self.from_ == self.name:
            found.append(f"--study.from: got {self.from_}, which is this study itself; name another one")
        return found
