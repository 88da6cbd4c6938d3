"""Settings of a study: the `study` section of a config."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from lightning_hpo.databases import DatabaseUrl, default_storage, default_tracking_uri, expand_home
from lightning_hpo.exceptions import InputError
from lightning_hpo.flag_types import Bounds, type_problems
from lightning_hpo.storage.objective import Objective, known_mode

__all__ = ["StudySettings", "trial_timeout_problems"]

_SHORTEST_TRIAL_TIMEOUT_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass
class StudySettings:
    """Settings of a study: trials, metric, sampler, pruner, devices, folder and databases.

    Args:
        name: Name of the study, of letters, digits, '.', '-' and '_'. Required by `tune`.
        n_trials: Total number of complete and pruned trials, including those of earlier calls.
        workers: Number of trials that train at the same time, each in its own process.
        devices: Indices of the GPUs to use, such as [0, 1]; auto for all. Each trial gets one GPU.
        per_device: Number of trials that train on one GPU at the same time.
        timeout: Seconds (above 0) after which `tune` pauses the running trials and exits. The next call resumes them.
        trial_timeout: Seconds (60 or more) without a sign of life after which a trial's process is killed. Its trial
            resumes from its checkpoint. Signs are given between batches. Default: never.
        from_: Study in the same database to start from. Its best points are tried after the config's own values.
        queue: Number of best trials of --study.from whose values are tried after the config's own.
        narrow: Share of each range to keep around the value of --study.from's best trial (above 0, at most 1).
        fix: Flags that are not searched: every trial uses their value in --study.from's best trial.
        seed: Seed of the sampler. The sampler's random numbers for a trial depend on it and on the trial's number.
        monitor: Name of the logged metric to optimize.
        mode: max if a higher metric is better, min if a lower one is. Default: as the model declares it for the metric.
        sampler: Optuna sampler by class path. Default: multivariate, grouped TPE.
        pruner: Optuna pruner by class path. Default: MedianPruner after 4 complete trials, from the second epoch.
        outdir: Root folder of checkpoints and logs. Those of trial N are in OUTDIR/STUDY/trial_N/.
        keep: Number of complete trials whose weights are kept, the best ones. Pruned trials keep none.
        checkpoint_minutes: Minutes between two checkpoints within an epoch (above 0).
        max_failures: Number of failed trials in a row after which the study stops.
        halve_on_oom: When a trial runs out of memory, restart it with half the batch size and twice the accumulation.
            If that happens in validation, only its batch size is halved.
        register: Register the best model once the study is complete.
        storage: Optuna's database, an SQLAlchemy URL. Default: OPTUNA_STORAGE or sqlite:///_optuna/dataaug.db.
        storage_wait: Seconds to wait while Optuna's database does not accept connections (at least 0).
        tracking_uri: MLflow's database or server. Default: MLFLOW_TRACKING_URI or sqlite:///mlflow.db.
    """

    name: str | None = None
    n_trials: Annotated[int, Bounds(1)] = 20
    workers: Annotated[int, Bounds(1)] = 1
    devices: list[int] | Literal["auto"] = "auto"
    per_device: Annotated[int, Bounds(1)] = 1
    timeout: float | None = None
    trial_timeout: float | None = None
    from_: str | None = None
    queue: Annotated[int, Bounds(0)] = 3
    narrow: float | None = None
    fix: list[str] = field(default_factory=list)
    seed: Annotated[int, Bounds(0, 2**32 - 1)] = 17
    monitor: str = "val_metric"
    mode: Literal["max", "min"] | None = None
    sampler: BaseSampler | None = None
    pruner: BasePruner | None = None
    outdir: str = "outputs"
    keep: Annotated[int, Bounds(1)] = 3
    checkpoint_minutes: float = 10.0
    max_failures: Annotated[int, Bounds(1)] = 3
    halve_on_oom: bool = True
    register: bool = True
    storage: str | None = None
    storage_wait: float = 600.0
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        """Fill in the databases that no flag names, and expand `~`, which YAML and the environment keep."""
        self.outdir = str(Path(self.outdir).expanduser())
        self.storage = expand_home(self.storage or default_storage())
        self.tracking_uri = expand_home(self.tracking_uri or default_tracking_uri())

    @property
    def folder(self) -> Path:
        """Folder of the study: OUTDIR/STUDY."""
        return Path(self.outdir) / str(self.name)

    @property
    def storage_url(self) -> DatabaseUrl:
        """Optuna's database.

        Raises:
            InputError: If it is not a URL.
        """
        return DatabaseUrl(str(self.storage), "--study.storage")

    @property
    def objective(self) -> Objective:
        """The metric, and whether more or less of it is better.

        Raises:
            InputError: If `mode` is not given, and the name of the metric does not tell it.
        """
        mode = self.mode or known_mode(self.monitor)
        if mode is None:
            raise InputError(f"--study.mode: required for {self.monitor}; use max or min")
        return Objective(self.monitor, mode)

    def problems(self) -> list[str]:
        """Return one line for each setting that cannot be used."""
        found = []
        if not self.name:
            found.append("--study.name: required; give the study a name, such as --study.name first-search")
        elif not _NAME.fullmatch(self.name):
            found.append(f"--study.name: got {self.name!r}; use letters, digits, '.', '-' and '_', as in a folder name")
        found += type_problems("--study", StudySettings, vars(self))
        if self.devices != "auto" and (not self.devices or len(set(self.devices)) < len(self.devices)):
            found.append(f"--study.devices: got {self.devices}; list each GPU once, or use auto")
        if not self.checkpoint_minutes > 0:
            found.append(f"--study.checkpoint_minutes: got {self.checkpoint_minutes}; use a number of minutes above 0")
        if self.timeout is not None and self.timeout <= 0:
            found.append(f"--study.timeout: got {self.timeout}; use a number of seconds above 0, or omit it")
        found += trial_timeout_problems("--study.trial_timeout", self.trial_timeout)
        if not 0 <= self.storage_wait < math.inf:
            found.append(f"--study.storage_wait: got {self.storage_wait}; use a number of seconds, 0 or more")
        return found + self._warm_start_problems()

    def _warm_start_problems(self) -> list[str]:
        found = []
        if self.narrow is not None and not 0 < self.narrow <= 1:
            found.append(f"--study.narrow: got {self.narrow}; use a number above 0 and at most 1")
        given = [f"--study.{flag}" for flag in ("narrow", "fix") if getattr(self, flag)]
        if given and self.from_ is None:
            found.append(f"{', '.join(given)}: only used together with --study.from; name the study to start from")
        if self.from_ is not None and self.from_ == self.name:
            found.append(f"--study.from: got {self.from_}, which is this study; name another one")
        return found


def trial_timeout_problems(flag: str, seconds: float | None) -> list[str]:
    """Return a line if a timeout of trials is so short that it could kill those that do not hang."""
    if seconds is None or seconds >= _SHORTEST_TRIAL_TIMEOUT_S:
        return []
    return [
        f"{flag}: got {seconds}; use 60 seconds or more, and more than the start of a trial or its longest batch takes"
    ]
