"""Estimate of the time that a study will take, and of the trials that fit on a GPU."""

import optuna
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from lightning_hpo.hardware.memory import GpuUse
from lightning_hpo.study.callback import StudyCallback
from lightning_hpo.study.session import Session
from lightning_hpo.trial.messages import Message
from lightning_hpo.trial.outcome import Outcome

__all__ = ["CostEstimate"]


class CostEstimate(StudyCallback):
    """Shows once, as soon as a trial has ended, how long the study will take, and how many trials fit on a GPU."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shown = self._advised = False

    def on_study_start(self) -> None:
        """Show the estimate if an earlier command has ended a trial."""
        self._show()

    def on_message(self, trial: optuna.Trial, message: Message) -> None:
        """Show how many such trials fit on a GPU, if more fit than share one now."""
        per_device = self._session.spec.settings.per_device
        if isinstance(message, GpuUse) and message.fitting > per_device and not self._advised:
            self._advised = True
            self._session.say(f"trial {trial.number}: {message.advice}")

    def on_trial_end(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Show the estimate after the first trial that has ended."""
        del trial, state, outcome
        self._show()

    def _show(self) -> None:
        if self._shown or self._session.stopping.requested:
            return
        cost = self._session.eta.expected(prunes=not isinstance(self._session.study.pruner, NopPruner))
        if cost is not None:
            self._shown = True
            self._session.say(f"expected: {cost}")
