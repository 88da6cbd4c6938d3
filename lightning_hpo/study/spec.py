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
from lightning_hpo.search.warm_start import WarmStart, find_warm_start
from lightning_hpo.storage.attributes import StudyKey, experiment_name
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

    def with_split_of(self, database: StudyDatabase) -> "StudySpec":
        """Return the specification with the rule for the split that the study began with, if that is version 0.1.0's.

        Any other change of the rule changes the fingerprint of the data, and is refused.
        """
        study = database.find(str(self.settings.name))
        stored = {} if study is None else study.user_attrs
        is_previous = StudyKey.AGENT in stored and StudyKey.SPLIT_RULE not in stored
        if not is_previous or not PREVIOUS_SPLIT.keys() <= flags(self.config).keys():
            return self
        return replace(self, config=with_flags(self.config, PREVIOUS_SPLIT))

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
    def epochs(self) -> int:
        """Validated epochs of a trial."""
        trainer = self.config["trainer"]
        return _ENDLESS if self.endless else int(trainer["max_epochs"]) // int(trainer["check_val_every_n_epoch"] or 1)
