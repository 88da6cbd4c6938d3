"""Reconciliation: find where the two databases and the trial folders disagree, and repair it."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.flags import flags, read_yaml
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, TrialKey, experiment_name, folder_of, run_ids_of, run_tags
from lightning_hpo.storage.lease import held_lease
from lightning_hpo.storage.optuna_private import reattach
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.outboxes import Outboxes, outbox_of, send_outbox
from lightning_hpo.study.ownership import owns_folder, owns_run
from lightning_hpo.study.recorder import record_outcome
from lightning_hpo.study.retention import unneeded_checkpoints
from lightning_hpo.tracking.entries import Entry, LogConfig, LogMetrics, LogParams, SetStatus, StartRun
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Run, Tracker
from lightning_hpo.trial.config import has_config
from lightning_hpo.trial.outcome import RUN_STATUS, Outcome, OutcomeKind, load_outcome

__all__ = ["Reconciliation", "reconcile"]

_NUMBER = re.compile("[0-9]{1,9}")  # anybody who can write to MLflow can set a tag
_OPEN_STATUSES = tuple(RUN_STATUS[state] for state in (TrialState.RUNNING, TrialState.WAITING))


def reconcile(study: optuna.Study, tracker: Tracker, *, dry_run: bool = False) -> list[str]:
    """Repair a study that this process does not tune, or with `dry_run` only report what disagrees.

    What another running process owns stays unchanged.

    Returns:
        What was found, one line each, and what was skipped.
    """
    if StudyKey.OUTDIR not in study.user_attrs:
        return ["skipped: it was not created by `tune`"]
    if len(study.directions) != 1:
        return [f"skipped: it has {len(study.directions)} objectives"]
    folder = folder_of(study)
    if folder.path.is_dir() and not owns_folder(study):
        return [f"skipped: the folder {folder.path} belongs to another study; its trials were imported from there"]
    if not folder.lock.exists():
        found = Reconciliation(study, tracker, alive=True).run(dry_run=dry_run)
        return [*found, f"running trials are skipped: the folder {folder.path} is not on this machine"]
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_study(folder.path))
            stack.enter_context(held_lease()).take(study)
        except InputError:
            found = Reconciliation(study, tracker, alive=True).run(dry_run=dry_run)
            return [*found, "running trials are skipped: a process is tuning the study"]
        found = Reconciliation(study, tracker, alive=False).run(dry_run=dry_run)
        return found or ["nothing to repair"]


@dataclass(frozen=True)
class _Finding:
    line: str
    repair: Callable[[], object]
    """Returns False if MLflow has not accepted the repair."""
    trial: int | None = None
    failed: str = ""
    """Line for a repair that MLflow has not accepted."""


class Reconciliation:
    """Compares a study with its runs and its folder.

    Args:
        study: A study that `tune` has created.
        tracker: MLflow's side of it.
        alive: Whether another process is tuning it; what that process owns stays unchanged.
        outboxes: Outboxes of the study, if this process tunes it; they send what MLflow has not received. Then only
            trials and runs that have not ended are compared. Finished trials can disagree only after a change from
            outside, and a study may have thousands of them.
    """

    def __init__(self, study: optuna.Study, tracker: Tracker, *, alive: bool, outboxes: Outboxes | None = None) -> None:
        self._study, self._tracker, self._alive, self._outboxes = study, tracker, alive, outboxes
        self._open_only = outboxes is not None
        self._folder = folder_of(study)
        self._seen: set[int] = set()
        self._experiment_id: str | None = None

    def run(self, *, dry_run: bool = False) -> list[str]:
        """Repair what disagrees, or with `dry_run` only find it. Return one line for each disagreement.

        Raises:
            InputError: If the experiment is in MLflow's trash; nothing is repaired then.
        """
        name = experiment_name(self._study.user_attrs[StudyKey.AGENT], self._study.study_name)
        self._experiment_id = self._tracker.find_experiment(name)
        checks = [self._runs] if self._alive else [self._left_running, self._runs, self._unsent, self._checkpoints]
        lines = []
        for check in checks:
            for finding in check():
                accepted = dry_run or finding.repair() is not False
                lines.append(finding.line if accepted else f"{finding.failed}: MLflow {self._tracker.problem}")
                if dry_run and finding.trial is not None:  # its other findings follow from this one
                    self._seen.add(finding.trial)
        return lines

    def end_running(self) -> None:
        """Record the saved outcome of each running trial, or pause it; no process may train it any more."""
        for check in (self._left_running, self._unsent):
            for finding in check():
                finding.repair()

    def _left_running(self) -> Iterator[_Finding]:
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            outcome = load_outcome(self._folder.trial(frozen.number))
            what = f"its outcome was {outcome.kind.value}" if outcome else "paused"
            # Not a crash of the trial: the study process counts those when it sees them.
            outcome = outcome or Outcome(OutcomeKind.INTERRUPTED, reason="the study process has exited")
            line = f"trial {frozen.number} is running, but no process trains it: {what}"
            yield _Finding(line, partial(self._end, frozen, outcome), frozen.number)

    def _end(self, frozen: FrozenTrial, outcome: Outcome) -> None:
        record_outcome(self._study, reattach(self._study, frozen), self._outbox(frozen), outcome)

    def _unsent(self) -> Iterator[_Finding]:
        """Find outboxes that MLflow has not received, or whose trial has ended. Those of `tune` are sent meanwhile."""
        trials = self._study.get_trials(deepcopy=False)
        for number in self._with_outbox():
            if number >= len(trials) or number in self._seen:
                continue
            frozen = trials[number]
            if self._outboxes is not None:
                self._outboxes.add(number, self._outbox(frozen))
            elif self._outbox(frozen).pending:
                line = f"trial {number} has entries that MLflow has not received"
                repair = partial(send_outbox, self._study, self._tracker, frozen)
                yield _Finding(f"{line}: sent", repair, number, f"{line}; not sent, they are kept")
            elif frozen.state.is_finished():
                line = f"trial {number} has ended and its outbox is sent: outbox removed"
                # Not only closed: the command may have been killed before it stored the run with the trial.
                yield _Finding(line, partial(send_outbox, self._study, self._tracker, frozen))

    def _with_outbox(self) -> list[int]:
        return [folder.number for folder in self._folder.trials() if folder.outbox.exists()]

    def _runs(self) -> Iterator[_Finding]:
        experiment_id = self._experiment_id
        if experiment_id is None:
            return
        trials = self._study.get_trials(deepcopy=False)
        run_ids = run_ids_of(self._study, trials)
        # The command may have been killed after it had created a run, and before it stored the run with the trial.
        left = [number for number in self._with_outbox() if number < len(trials)]
        run_ids |= {number: self._outbox(trials[number]).run_id for number in left}
        owned = set(run_ids.values())
        unknown = {number for number in left if run_ids[number] is None}  # their outboxes find a run that was created
        compared_ids = [run_ids[t.number] for t in trials if not self._open_only or not t.state.is_finished()]
        runs = self._listed(experiment_id, compared_ids)
        for frozen in trials:
            compared = not self._open_only or not frozen.state.is_finished() or run_ids[frozen.number] in runs
            if compared and frozen.number not in self._seen and self._settled(frozen):
                yield from self._compared(frozen, run_ids[frozen.number], runs, experiment_id)
        for run_id, run in runs.items():
            if run_id not in owned and self._is_left_over(run, trials, unknown):
                number = run.tags["optuna_trial"]
                line = f"run {run_id} names trial {number}, which has another run: moved to MLflow's trash"
                yield _Finding(line, partial(self._tracker.delete_run, run_id))

    def _listed(self, experiment_id: str, of_trials: Iterable[str | None]) -> dict[str, Run]:
        """Return the runs to compare, by id: those of trials, in any experiment, and those that may be left over."""
        statuses = _OPEN_STATUSES if self._open_only else (None,)
        runs = {run.run_id: run for status in statuses for run in self._tracker.runs(experiment_id, status)}
        for run_id in of_trials:
            if run_id is not None and run_id not in runs and (run := self._tracker.run(run_id)):
                runs[run_id] = run
        return runs

    def _settled(self, frozen: FrozenTrial) -> bool:
        """Return whether no process is about to change the trial's run."""
        if not self._alive:
            return True
        return frozen.state.is_finished() and not self._folder.trial(frozen.number).outbox.exists()

    def _compared(
        self, frozen: FrozenTrial, run_id: str | None, runs: dict[str, Run], experiment_id: str
    ) -> Iterator[_Finding]:
        status = RUN_STATUS[frozen.state]
        pending = self._folder.trial(frozen.number).outbox.exists() and self._outbox(frozen).pending
        if run_id is None and (pending or not frozen.state.is_finished()):
            return
        if run_id is None or run_id not in runs:
            if has_config(self._folder.trial(frozen.number)):
                line = f"trial {frozen.number} has no run: recorded again"
                yield _Finding(line, partial(self._record_again, frozen, experiment_id))
        elif not owns_run(self._study, runs[run_id]):
            return  # the study was imported, and the run is that of the original
        elif runs[run_id].status != status and not pending:
            state, now = frozen.state.name, runs[run_id].status
            line = f"trial {frozen.number} is {state} and its run {now}: run set to {status}"
            yield _Finding(line, partial(self._tracker.set_status, run_id, status, {"optuna_state": state}))

    def _is_left_over(self, run: Run, trials: list[FrozenTrial], unknown: set[int]) -> bool:
        own, tags = self._study.user_attrs.get(StudyKey.ID), run.tags
        if own is None or tags.get(StudyKey.ID) != own or not _NUMBER.fullmatch(tags.get("optuna_trial", "")):
            return False
        number = int(tags["optuna_trial"])
        # While a process tunes the study, a new run may not be stored with its trial yet.
        return number not in self._seen | unknown and (
            not self._alive or (number < len(trials) and trials[number].state.is_finished())
        )

    def _record_again(self, frozen: FrozenTrial, experiment_id: str) -> None:
        outbox = self._outbox(frozen)
        if not outbox.restart():
            outbox.rewrite(self._entries(frozen, experiment_id, outbox))
        send_outbox(self._study, self._tracker, frozen)

    def _entries(self, frozen: FrozenTrial, experiment_id: str, outbox: Outbox) -> list[Entry]:
        """Return entries for a new run: the config, what Optuna has of the trial, and what MLflow has not received."""
        tags = {**run_tags(self._study, frozen.number, frozen.state.name), "recorded_anew": "true"}
        text = outbox.folder.config.read_text(encoding="utf-8")
        config = read_yaml(text)
        values = {name: value for name, value in flags(config).items() if value is not None}
        entries: list[Entry] = [
            StartRun(experiment_id, outbox.folder.path.name, tags),
            LogParams({**values, **frozen.params}),
            LogConfig(config, text),
        ]
        monitor = self._study.user_attrs[StudyKey.MONITOR]
        for epoch, value in frozen.intermediate_values.items():
            entries.append(LogMetrics({monitor: value, "epoch": epoch}, step=epoch))
        if frozen.state == TrialState.COMPLETE:
            epoch = frozen.user_attrs.get(TrialKey.BEST_EPOCH, 0)
            measured = {"final_metric": float(frozen.value or 0.0), "best_epoch": epoch}
            if TrialKey.RUNTIME in frozen.user_attrs:
                measured["runtime_s"] = frozen.user_attrs[TrialKey.RUNTIME]
            entries.append(LogMetrics(measured, step=0))
        return [*entries, *outbox.unsent(), SetStatus(RUN_STATUS[frozen.state], {})]

    def _checkpoints(self) -> Iterator[_Finding]:
        for path in unneeded_checkpoints(self._study):
            yield _Finding(f"{path.parent.name}/{path.name} is not needed by any trial: removed", path.unlink)

    def _outbox(self, frozen: FrozenTrial) -> Outbox:
        if self._outboxes is None:
            return outbox_of(self._study, self._tracker, frozen)
        return outbox_of(self._study, self._tracker, frozen, on_write=_send_later)


def _send_later() -> None:
    """Leave an entry to the thread that sends the outboxes of `tune`."""
