"""Specification of a study: its config, its search space and its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from jsonargparse import Namespace
from optuna.trial import TrialState

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import class_of, flags, with_flags
from lightning_hpo.config.previous_version import PREVIOUS_SPLIT
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.warm_start import WarmStart, find_warm_start
from lightning_hpo.storage.attributes import StudyKey, experiment_name
from lightning_hpo.storage.objective import Mode, Objective, known_mode
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase

__all__ = ["Sample", "StudySpec"]

_ENDLESS = 100


@dataclass(frozen=True)
class Sample:
    """Sampled values of a trial.

    Args:
        values: Value by parameter name, as MLflow records them.
        config: The config that the trial trains.
    """

    values: Mapping[str, Any]
    config: dict[str, Any]


@dataclass(frozen=True)
class StudySpec:
    """Specification of a study: config, search space and settings.

    Args:
        config: The resolved config that every trial starts from.
        search_space: Ranges and choices by flag.
        settings: The study's settings.
        sampler: Class path and arguments of the sampler, or None for the default.
        pruner: Class path and arguments of the pruner, or None for the default.
        sample: Samples a trial; by default from the search space.
        attributes: Further attributes to store with the study.
        data_fingerprint: Fingerprint that the data must have; None for any.
        counted: States that count towards the number of trials.
        command: Command that resumes the study.
        warm_start: What the study takes over from another one, if it starts from one.
    """

    config: Mapping[str, Any]
    search_space: Mapping[str, Any]
    settings: StudySettings
    sampler: Namespace | None = None
    pruner: Namespace | None = None
    sample: Callable[[optuna.Trial], Sample] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    data_fingerprint: str | None = None
    counted: tuple[TrialState, ...] = (TrialState.COMPLETE, TrialState.PRUNED)
    command: str = ""
    warm_start: WarmStart | None = None

    def with_warm_start(self, database: StudyDatabase) -> "StudySpec":
        """Return the specification with what it takes over from the study that the settings name.

        Raises:
            InputError: If the study cannot start from that one.
        """
        warm_start = find_warm_start(database, self.settings, self.agent, self.search_space)
        if warm_start is None:
            return self
        return replace(self, config=resolve(self.config, warm_start.fixed), warm_start=warm_start)

    def with_split_of(self, stored: optuna.Study | None) -> "StudySpec":
        """Return the specification with the rule for the split that the study began with, if that is version 0.1.0's.

        Any other change of the rule changes the fingerprint of the data, and is refused.
        """
        attributes = {} if stored is None else stored.user_attrs
        is_previous = StudyKey.AGENT in attributes and StudyKey.SPLIT_RULE not in attributes
        if not is_previous or not PREVIOUS_SPLIT.keys() <= flags(self.config).keys():
            return self
        return replace(self, config=with_flags(self.config, PREVIOUS_SPLIT))

    def with_mode(self, stored: optuna.Study | None) -> "StudySpec":
        """Return the specification with the mode of its metric, if the settings do not give one.

        Args:
            stored: The study, if it exists. Its mode is used if the model does not tell that of its metric.

        Raises:
            InputError: If the settings contradict the model, or nothing tells the mode.
        """
        monitor, given, known = self.settings.monitor, self.settings.mode, self.mode_of(self.settings.monitor)
        if known is None and stored is not None and stored.user_attrs.get(StudyKey.MONITOR) == monitor:
            known = Objective.of(stored).mode if given is None else None
        model = class_of(self.config["model"]).__name__
        if given is None and known is None:
            raise InputError(
                f"--study.mode: required, since {model} does not declare whether a higher or a lower {monitor} is "
                "better; use max or min"
            )
        if None not in (given, known) and given != known:
            better = "higher" if known == "max" else "lower"
            raise InputError(f"--study.mode: got {given}, but a {better} {monitor} is better; use {known}, or omit it")
        return replace(self, settings=replace(self.settings, mode=given or known))

    def mode_of(self, metric: str) -> Mode | None:
        """Return whether a higher or a lower value of a metric is better; None if the model does not declare it.

        A LightningModule declares the metrics that are minimized in a class attribute `MINIMIZED`.
        """
        return known_mode(metric, getattr(class_of(self.config["model"]), "MINIMIZED", None))

    def callback_problems(self) -> list[str]:
        """Return a line for each callback of the config whose mode contradicts the metric that it monitors."""
        configured = self.config["trainer"].get("callbacks") or []
        problems = []
        for callback in [configured] if isinstance(configured, Mapping) else configured:
            values = callback.get("init_args") or {} if isinstance(callback, Mapping) else {}
            monitor, mode = values.get("monitor"), values.get("mode")
            right = self.settings.mode if monitor == self.settings.monitor else self.mode_of(str(monitor))
            if monitor and mode in ("max", "min") and right not in (None, mode):
                name = str(callback.get("class_path")).rpartition(".")[-1]
                better = "higher" if right == "max" else "lower"
                problems.append(
                    f"--trainer.callbacks: {name} has the mode {mode}, but a {better} {monitor} is better; use mode: "
                    f"{right}"
                )
        return problems

    @property
    def agent(self) -> str:
        """Agent that is tuned: criteria, evidence, or the class name of another module."""
        module = class_of(self.config["model"])
        return str(getattr(module, "agent", module.__name__.lower()))

    @property
    def experiment(self) -> str:
        """Name of the study's experiment in MLflow."""
        return experiment_name(self.agent, str(self.settings.name))

    @property
    def endless(self) -> bool:
        """Whether the number of epochs is not limited."""
        return self.config["trainer"]["max_epochs"] in (None, -1)

    @property
    def reports(self) -> int:
        """Validations of a trial, each of which is reported. An interval in batches counts as one validation."""
        trainer = self.config["trainer"]
        if self.endless:
            return _ENDLESS
        share = trainer.get("val_check_interval")
        within = int(1 / share + 1e-9) if isinstance(share, float) and 0 < share < 1 else 1
        return within * (int(trainer["max_epochs"]) // int(trainer["check_val_every_n_epoch"] or 1))
