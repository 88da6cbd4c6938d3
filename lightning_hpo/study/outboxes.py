"""Outboxes of a study's trials: those of running trials, and those that MLflow has not accepted yet."""

from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial

from lightning_hpo.storage.attributes import TrialKey, folder_of, run_id_of, set_run_id
from lightning_hpo.storage.optuna_private import trial_by_number
from lightning_hpo.study.sender import Sender
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["Outboxes", "outbox_of", "send_outbox"]


def outbox_of(
    study: optuna.Study, tracker: Tracker, trial: FrozenTrial, on_write: Callable[[], None] | None = None
) -> Outbox:
    """Return the outbox of a trial that no process trains."""
    return Outbox(folder_of(study).trial(trial.number), tracker, run_id_of(study, trial), on_write)


def send_outbox(study: optuna.Study, tracker: Tracker, trial: FrozenTrial) -> bool:
    """Send the outbox of a trial that no process trains, and return whether MLflow has accepted it."""
    outbox = outbox_of(study, tracker, trial)
    sent = outbox.send(now=True)
    _settle(study, trial, outbox)
    return sent


def _settle(study: optuna.Study, trial: FrozenTrial, outbox: Outbox) -> None:
    """Store a run that the outbox has created, and remove the outbox of a finished trial if all of it was sent."""
    if outbox.run_id is not None and run_id_of(study, trial) != outbox.run_id:
        set_run_id(study, trial, outbox.run_id)
    if trial.state.is_finished():
        outbox.close()


class Outboxes:
    """Outboxes of the trials of one study, which a thread sends.

    Args:
        study: The study.
        tracker: MLflow's side of it.
    """

    def __init__(self, study: optuna.Study, tracker: Tracker) -> None:
        self._study, self._tracker = study, tracker
        self._folder = folder_of(study)
        self._running: dict[int, Outbox] = {}
        self._without_run: set[int] = set()
        self._unsent: set[int] = set()
        self._sender = Sender(tracker)

    @property
    def unsent(self) -> int:
        """Number of ended trials with entries that MLflow has not accepted."""
        return len(self._unsent)

    @property
    def problem(self) -> str:
        """Why MLflow has not accepted them, as a clause."""
        return self._sender.problem

    def of(self, trial: optuna.Trial) -> Outbox:
        """Return the outbox of a running trial."""
        number = trial.number
        if number not in self._running:
            self._unsent.discard(number)
            run_id = trial.user_attrs.get(TrialKey.RUN_ID)
            if run_id is None:
                self._without_run.add(number)
            folder = self._folder.trial(number)
            self._running[number] = Outbox(folder, self._tracker, run_id, on_write=lambda: self.send(number))
        return self._running[number]

    def send(self, number: int) -> None:
        """Send the outbox of a running trial, which has a new entry."""
        self._sender.send(number, self._running[number])

    def add(self, number: int, outbox: Outbox) -> None:
        """Send what the outbox of a trial holds that no process trains."""
        self._unsent.add(number)
        self._sender.send(number, outbox)

    def release(self, trial: optuna.Trial) -> None:
        """Leave the outbox of a trial whose process has ended to the thread."""
        self.add(trial.number, self._running.pop(trial.number))

    def settle(self) -> None:
        """Store the runs that the thread has created, and remove the outboxes of finished trials that it has sent.

        Raises:
            OSError: If the disk cannot be written.
        """
        for number in self._sender.take_sent():
            if number not in self._unsent and number not in self._without_run:
                continue
            trial = trial_by_number(self._study, number)
            if trial is None:
                continue
            outbox = outbox_of(self._study, self._tracker, trial)
            pending = outbox.pending
            _settle(self._study, trial, outbox)
            if outbox.run_id is not None:
                self._without_run.discard(number)
            if not pending:  # an entry may have been written since
                self._unsent.discard(number)

    def submit(self, job: Callable[[], object]) -> None:
        """Call a function that asks MLflow for something in the thread that sends the outboxes."""
        self._sender.submit(job)

    def stop(self, last_try_s: float = 0.0) -> None:
        """Send nothing any more, after a last try for so many seconds."""
        if last_try_s:
            self._sender.drain(limit_s=last_try_s)
        self._sender.stop()

    def drain(self, on_wait: Callable[[int], object] | None = None) -> bool:
        """Try to send everything now. Return whether MLflow has accepted it.

        Args:
            on_wait: Called every ten seconds with the number of outboxes that are left.
        """
        accepted = self._sender.drain(on_wait)
        self.settle()
        return accepted
