"""Outboxes of a study's trials: those of running trials, and those that MLflow has not accepted yet."""

import optuna
from optuna.trial import FrozenTrial

from lightning_hpo.storage.attributes import TrialKey, folder_of, run_id_of, set_run_id
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["Outboxes", "outbox_of", "send_outbox"]


def outbox_of(study: optuna.Study, tracker: Tracker, trial: FrozenTrial) -> Outbox:
    """Return the outbox of a trial that no process trains."""
    return Outbox(folder_of(study).trial(trial.number), tracker, run_id_of(study, trial))


def send_outbox(study: optuna.Study, tracker: Tracker, trial: FrozenTrial, *, now: bool = False) -> bool:
    """Send the outbox of a trial that no process trains, as `Outbox.send` does, and store a run that it has created."""
    outbox = outbox_of(study, tracker, trial)
    sent = outbox.send(now=now)
    if outbox.run_id is not None and run_id_of(study, trial) != outbox.run_id:
        set_run_id(study, trial, outbox.run_id)
    if sent and trial.state.is_finished():
        outbox.close()
    return sent


class Outboxes:
    """Outboxes of the trials of one study."""

    def __init__(self, study: optuna.Study, tracker: Tracker) -> None:
        self._study, self._tracker = study, tracker
        self._folder = folder_of(study)
        self._running: dict[int, Outbox] = {}
        self._unsent: set[int] = set()

    @property
    def unsent(self) -> int:
        """Number of ended trials with entries that MLflow has not accepted."""
        return len(self._unsent)

    @property
    def problem(self) -> str:
        """Why MLflow has not accepted them, as a clause."""
        return self._tracker.problem or self._tracker.artifact_problem or "does not answer"

    def of(self, trial: optuna.Trial) -> Outbox:
        """Return the outbox of a running trial."""
        if trial.number not in self._running:
            self._unsent.discard(trial.number)  # sent with the trial's new entries from now on
            folder = self._folder.trial(trial.number)
            self._running[trial.number] = Outbox(folder, self._tracker, trial.user_attrs.get(TrialKey.RUN_ID))
        return self._running[trial.number]

    def release(self, trial: optuna.Trial) -> None:
        """Close the outbox of a trial whose process has ended; `flush` sends what it still holds."""
        if self._running.pop(trial.number).pending:
            self._unsent.add(trial.number)

    def flush(self, *, now: bool = False) -> bool:
        """Send what MLflow has not accepted of ended trials, as `Outbox.send` does."""
        trials = self._study.get_trials(deepcopy=False) if self._unsent else []
        for number in sorted(self._unsent):
            if send_outbox(self._study, self._tracker, trials[number], now=now):
                self._unsent.remove(number)
        return not self._unsent
