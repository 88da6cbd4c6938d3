"""Base class of study callbacks."""

import optuna
from optuna.trial import TrialState

from lightning_hpo.trial.messages import Message
from lightning_hpo.trial.outcome import Outcome

__all__ = ["StudyCallback"]


class StudyCallback:
    """Observer of a study, called by `tune.run` in the study process. Override the hooks that you need.

    Add it to `default_callbacks` in `tune.py`, which studies and refits use. An exception in a hook ends the study. Do
    slow work in `on_wait`.
    """

    def on_study_start(self) -> None:
        """Called before the first trial starts."""

    def on_trial_start(self, trial: optuna.Trial, *, resumed: bool) -> None:
        """Called before a trial's process starts, with whether the trial has trained before."""

    def on_message(self, trial: optuna.Trial, message: Message) -> None:
        """Called for each message of a trial that needs no answer, except its outcome."""

    def on_trial_end(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Called when a trial's process has ended and its outcome is recorded, also if the trial was paused.

        Check `state.is_finished()`. Trials that reconciliation closes after a crash are not reported.
        """

    def on_wait(self) -> None:
        """Called when all workers are busy, before waiting for their messages: the time for slow work."""

    def on_study_complete(self) -> None:
        """Called after the last trial of the study."""

    def on_study_end(self) -> None:
        """Called after the last trial of this command, also when an exception ends it."""
