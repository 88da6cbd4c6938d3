"""The line between a trial's process and its study's, which alone talks to the two databases while the trial trains."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import optuna

__all__ = ["TrialServer", "Question", "RemoteTrial", "Written"]


@dataclass(frozen=True)
class Question:
    """What a trial's process asks, and waits to be answered.

    Args:
        name: A method of `TrialServer`.
        arguments: Its arguments.
    """

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Written:
    """A trial's process has written into its outbox; what is written is to be sent."""


class RemoteTrial:
    """The trial's end. To a callback it is Optuna's trial: what is reported and asked here is answered by the study.

    So a trial neither opens a database nor reads what came before it, however much that is.

    Args:
        pipe: To the study's process and back.

    Raises:
        BrokenPipeError: From every question, if nobody is there to answer it.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def report(self, value: float, step: int) -> None:
        """Report a value to Optuna; back from here, it is in the database."""
        self._ask("report", float(value), int(step))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Let Optuna's trial say something of itself."""
        self._ask("set_user_attr", key, value)

    def should_prune(self) -> bool:
        """Whether the pruner says stop."""
        return bool(self._ask("should_prune"))

    def leads(self, value: float) -> bool:
        """Whether the value is better than that of every complete trial."""
        return bool(self._ask("leads", value))

    def written(self) -> None:
        """Let the study send what the outbox holds; not waited for."""
        self._pipe.send(Written())

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send(Question(name, arguments))
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise BrokenPipeError from error


class TrialServer:
    """The study's end, for one trial.

    Args:
        study: The study.
        trial_id: Optuna's id of the trial, which is running.
        leads: Whether a value is better than that of every complete trial.
    """

    def __init__(self, study: optuna.Study, trial_id: int, leads: Callable[[float], bool]) -> None:
        # A pruner of its own: what one remembers of other trials would be forgotten by a study that is interrupted.
        own = optuna.load_study(
            study_name=study.study_name,
            storage=study._storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=deepcopy(study.pruner),
        )
        self._trial = optuna.Trial(own, trial_id)
        self.leads = leads

    def answer(self, question: Question) -> Any:
        """Do what is asked, and give the answer."""
        return getattr(self, question.name)(*question.arguments)

    def report(self, value: float, step: int) -> None:
        """Report a value, unless a trial that died behind its report says it again."""
        if step not in self._trial._cached_frozen_trial.intermediate_values:
            self._trial.report(value, step)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Let the trial say something of itself."""
        self._trial.set_user_attr(key, value)

    def should_prune(self) -> bool:
        """Whether the pruner says stop."""
        return self._trial.should_prune()
