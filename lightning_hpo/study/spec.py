"""A study to run: its config, its search space, its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jsonargparse import Namespace
from optuna.trial import TrialState

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import class_of
from lightning_hpo.search.warm_start import WarmStart, find_warm_start
from lightning_hpo.storage.settings import StudySettings

__all__ = ["StudySpec"]

_ENDLESS = 100


@dataclass(frozen=True)
class StudySpec:
    """A study to run.

    Args:
        config: The resolved config that every trial starts from.
        search_space: Ranges and choices by flag.
        settings: The study's settings.
        sampler: Class path and arguments of the sampler, or None.
        pruner: Class path and arguments of the pruner, or None.
        tags: Tags of every run beside those that every study's runs have.
        counted: Endings that count towards the number of trials.
        command: What a user types to go on with it.
        warm_start: What it takes over from another study, if it starts from one.
    """

    config: Mapping[str, Any]
    search_space: Mapping[str, Any]
    settings: StudySettings
    sampler: Namespace | None = None
    pruner: Namespace | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    counted: tuple[TrialState, ...] = (TrialState.COMPLETE, TrialState.PRUNED)
    command: str = ""
    warm_start: WarmStart | None = None

    def with_warm_start(self) -> "StudySpec":
        """The study with what it takes over from another one, where it starts from one.

        Raises:
            InputError: If that cannot be taken over.
        """
        warm_start = find_warm_start(self.settings, self.agent, self.search_space)
        return (
            self
            if warm_start is None
            else replace(self, config=resolve(self.config, warm_start.fixed), warm_start=warm_start)
        )

    @property
    def agent(self) -> str:
        """What is tuned: criteria, evidence, or another module's class name."""
        module = class_of(self.config["model"])
        return str(getattr(module, "agent", module.__name__.lower()))

    @property
    def experiment(self) -> str:
        """Name of its experiment in MLflow."""
        return f"{self.agent}-{self.settings.name}"

    @property
    def endless(self) -> bool:
        """Whether no number of epochs ends a trial."""
        return self.config["trainer"]["max_epochs"] in (None, -1)

    @property
    def epochs(self) -> int:
        """Validated epochs of a trial."""
        trainer = self.config["trainer"]
        return _ENDLESS if self.endless else int(trainer["max_epochs"]) // int(trainer["check_val_every_n_epoch"] or 1)
