"""Trials that hang: report them, and kill their processes."""

import time

import optuna
from optuna.trial import TrialState

from lightning_hpo.study.callback import StudyCallback
from lightning_hpo.study.eta import duration
from lightning_hpo.study.session import Session
from lightning_hpo.trial.messages import Message
from lightning_hpo.trial.outcome import Outcome

__all__ = ["HangDetector"]

_REPORT_S = 600.0
_STOPPING_S = 300.0
_FRAMES_S = 10.0
_COUNTED_S = 10.0


class HangDetector(StudyCallback):
    """Reports a trial that gives no sign of life for ten minutes, and kills it after `--study.trial_timeout` seconds.

    Once the study has to stop, a trial is killed after five minutes: it would not see the request.

    Before it is killed, the process has ten seconds to print to its log what its threads execute. It is not asked to
    stop: it would do so at its next batch, which would be a sign of life.

    A message without an answer is a sign of life. Only time in which this process handles messages counts as silence:
    no trial is killed because the study was suspended, or has waited for a database.

    Args:
        session: The study.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._timeout = session.spec.settings.trial_timeout
        self._silent: dict[optuna.Trial, float] = {}
        self._printed: dict[optuna.Trial, float] = {}
        self._stopping = 0.0
        self._checked = time.monotonic()

    def on_trial_start(self, trial: optuna.Trial, *, resumed: bool) -> None:
        """Start to measure the trial's silence."""
        del resumed
        self._silent[trial] = 0.0

    def on_message(self, trial: optuna.Trial, message: Message) -> None:
        """End the trial's silence."""
        del message
        if trial not in self._silent:  # its process has been killed
            return
        if self._silent[trial] >= _REPORT_S:
            self._session.say(f"trial {trial.number} gives signs of life again")
        self._silent[trial] = 0.0
        self._printed.pop(trial, None)

    def on_trial_end(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Forget the trial."""
        del state, outcome
        self._silent.pop(trial, None)
        self._printed.pop(trial, None)

    def on_wait(self) -> None:
        """Report and kill trials that have been silent for too long."""
        now = time.monotonic()
        passed, self._checked = min(now - self._checked, _COUNTED_S), now
        self._stopping += passed if self._session.stopping.requested else 0.0
        for trial, before in list(self._silent.items()):
            silent = self._silent[trial] = before + passed
            if before < _REPORT_S <= silent:
                self._report(trial, silent)
            if self._hangs(silent):
                self._end(trial, silent)

    def _hangs(self, silent: float) -> bool:
        return min(silent, self._stopping) >= _STOPPING_S or (self._timeout is not None and silent >= self._timeout)

    def _report(self, trial: optuna.Trial, silent: float) -> None:
        flag = "--study.trial_timeout" if self._session.spec.sample is None else "--trial_timeout"
        advice = "" if self._timeout else f"; with {flag}, such a trial is killed and resumed"
        self._session.say(f"trial {trial.number}: no sign of life for {duration(silent)}{advice}")

    def _end(self, trial: optuna.Trial, silent: float) -> None:
        if trial not in self._printed:
            self._printed[trial] = silent
            self._session.workers.print_frames(trial)
        elif silent >= self._printed[trial] + _FRAMES_S:
            reason = f"no sign of life for {duration(silent)}"
            self._session.workers.end(trial, reason)
            log = self._session.folder.trial(trial.number).log
            self._session.say(f"trial {trial.number} is killed: {reason}; {log} shows what it executed")
            del self._silent[trial]
