"""Study-process side of the connection: answers the requests of one trial."""

from collections.abc import Callable
from copy import deepcopy

import optuna

from lightning_hpo.storage.optuna_private import has_reported, reattach, storage_of
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.trial.messages import (
    IsBest,
    Report,
    Request,
    RunId,
    SetAttribute,
    ShouldPrune,
    WriteEntry,
    WrittenSteps,
)

__all__ = ["TrialServer"]


class TrialServer:
    """Answers the requests of one trial process.

    Args:
        study: The study.
        trial: The running trial.
        is_best: Returns whether a value is better than that of every complete trial.
        outbox: The trial's entries for MLflow.
    """

    def __init__(
        self, study: optuna.Study, trial: optuna.Trial, is_best: Callable[[float], bool], outbox: Outbox
    ) -> None:
        # Each trial gets a copy of the pruner, which keeps no state between trials: an interruption would lose it.
        own = optuna.load_study(
            study_name=study.study_name,
            storage=storage_of(study),
            sampler=optuna.samplers.RandomSampler(),
            pruner=deepcopy(study.pruner),
        )
        self._trial = reattach(own, trial)
        self._is_best, self._outbox = is_best, outbox

    def answer(self, request: Request) -> bool | str | set[int] | None:
        """Carry out a request and return its answer.

        Raises:
            OSError: If an entry cannot be written.
        """
        match request:
            case Report(value, step):
                # A resumed trial may repeat the report after which it crashed.
                if not has_reported(self._trial, step):
                    self._trial.report(value, step)
            case ShouldPrune():
                return self._trial.should_prune()
            case IsBest(value):
                return self._is_best(value)
            case SetAttribute(key, value):
                self._trial.set_user_attr(key, value)
            case WriteEntry(entry):
                self._outbox.write(entry)
            case WrittenSteps(metric):
                return self._outbox.steps(metric)
            case RunId():
                return self._outbox.run_id
        return None
