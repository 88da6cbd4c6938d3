"""Where the two databases and the trials' folders disagree, and how that is mended."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.exceptions import InputError
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.recorder import (
    RUN_STATUS,
    Outcome,
    OutcomeKind,
    conclude,
    keep_run_id,
    kept_outcome,
    run_id_of,
    run_ids_of,
)
from lightning_hpo.study.retention import unowned_checkpoints
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Run, Tracker

__all__ = ["Reconciliation", "reconcile", "send"]

_TAGS = ("optuna_study", "optuna_trial")


def send(study: optuna.Study, tracker: Tracker, trial: FrozenTrial, *, now: bool = False) -> bool:
    """Send what a trial's outbox holds.

    Args:
        study: The study.
        tracker: MLflow's side of it.
        trial: The trial; no process runs it.
        now: Try even if MLflow was away a moment ago.

    Returns:
        Whether everything is sent.
    """
    outbox = Outbox(Path(study.user_attrs["outdir"]) / f"trial_{trial.number}", tracker, run_id_of(study, trial))
    sent = outbox.send(now=now)
    if outbox.run_id is not None and run_id_of(study, trial) is None:
        keep_run_id(study, trial, outbox.run_id)
    if sent and trial.state.is_finished():
        outbox.close()
    return sent


def reconcile(study: optuna.Study, tracker: Tracker, *, dry_run: bool = False) -> list[str]:
    """Mend a study from outside; what a living process owns is not touched.

    Args:
        study: The study.
        tracker: MLflow's side of it.
        dry_run: Only look.

    Returns:
        What was found, a line each, and what was left alone.
    """
    outdir = study.user_attrs.get("outdir")
    if outdir is None:
        return ["it was not made by `tune`: left alone"]
    folder = Path(outdir)
    if not (folder / ".lock").exists():
        found = Reconciliation(study, tracker, alive=True).run(dry_run=dry_run)
        return [*found, f"its folder {folder} is not on this machine: trials that run were left alone"]
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_study(folder))
        except InputError:
            found = Reconciliation(study, tracker, alive=True).run(dry_run=dry_run)
            return [*found, "it is being tuned: trials that run were left alone"]
        found = Reconciliation(study, tracker, alive=False).run(dry_run=dry_run)
        return found or ["nothing to mend"]


@dataclass(frozen=True)
class _Finding:
    line: str
    mend: Callable[[], object]
    trial: int | None = None


class Reconciliation:
    """Compares a study with its runs and its folder.

    Args:
        study: The study; it was made by `tune`.
        tracker: MLflow's side of it.
        alive: Whether a process is tuning it; what that one owns is not touched.
    """

    def __init__(self, study: optuna.Study, tracker: Tracker, *, alive: bool) -> None:
        self._study, self._tracker, self._alive = study, tracker, alive
        self._folder = Path(study.user_attrs["outdir"])
        self._seen: set[int] = set()

    def run(self, *, dry_run: bool = False) -> list[str]:
        """Mend what can be mended.

        Args:
            dry_run: Only look.

        Returns:
            A line for each disagreement.
        """
        looks = [self._runs] if self._alive else [self._left_running, self._unsent, self._runs, self._checkpoints]
        lines = []
        for look in looks:
            for finding in look():
                lines.append(finding.line)
                if not dry_run:
                    finding.mend()
                elif finding.trial is not None:  # what else is wrong with it follows from this
                    self._seen.add(finding.trial)
        return lines

    def _left_running(self) -> Iterator[_Finding]:
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            outcome = kept_outcome(self._of(frozen.number))
            what = f"it had ended ({outcome.ending.value})" if outcome else "parked, or failed after three deaths"
            outcome = outcome or Outcome(OutcomeKind.DIED, reason="the study's process died")
            line = f"trial {frozen.number} is running and nobody runs it: {what}"
            yield _Finding(line, partial(self._end, frozen, outcome), frozen.number)

    def _end(self, frozen: FrozenTrial, outcome: Outcome) -> None:
        trial = optuna.Trial(self._study, frozen._trial_id)
        conclude(self._study, trial, self._outbox(frozen), outcome)

    def _unsent(self) -> Iterator[_Finding]:
        trials = self._study.get_trials(deepcopy=False)
        for path in sorted(self._folder.glob("trial_*/journal.jsonl")):
            number = int(path.parent.name.removeprefix("trial_"))
            if number >= len(trials) or number in self._seen:
                continue
            frozen = trials[number]
            if self._outbox(frozen).pending:
                line = f"trial {number} has not told MLflow everything: sent"
                yield _Finding(line, partial(send, self._study, self._tracker, frozen, now=True), number)
            elif frozen.state.is_finished():
                yield _Finding(f"trial {number} is over, its outbox sent: removed", self._outbox(frozen).close)

    def _runs(self) -> Iterator[_Finding]:
        name = f"{self._study.user_attrs['agent']}-{self._study.study_name}"
        experiment = self._tracker.client.get_experiment_by_name(name)
        if experiment is None:
            return
        trials = self._study.get_trials(deepcopy=False)
        runs = {run.run_id: run for run in self._tracker.states(experiment.experiment_id, _TAGS)}
        run_ids = run_ids_of(self._study, trials)
        owned = set(run_ids.values())
        for frozen in trials:
            if frozen.number not in self._seen and self._settled(frozen):
                yield from self._compared(frozen, run_ids[frozen.number], runs, experiment.experiment_id)
        for run_id, run in runs.items():
            if run_id not in owned and self._is_left_over(run, trials):
                number = run.tags["optuna_trial"]
                line = f"run {run_id} says it is trial {number}, which knows nothing of it: put into MLflow's bin"
                yield _Finding(line, partial(self._tracker.delete_run, run_id))

    def _settled(self, frozen: FrozenTrial) -> bool:
        """Whether nobody is about to change the trial's run."""
        if not self._alive:
            return True
        return frozen.state.is_finished() and not (self._of(frozen.number) / "journal.jsonl").exists()

    def _compared(
        self, frozen: FrozenTrial, run_id: str | None, runs: dict[str, Run], experiment_id: str
    ) -> Iterator[_Finding]:
        status = RUN_STATUS[frozen.state]
        if run_id is None and not frozen.state.is_finished():
            return
        if run_id is None or run_id not in runs:
            line = f"trial {frozen.number} has no run: recorded anew"
            yield _Finding(line, partial(self._record_anew, frozen, experiment_id))
        elif runs[run_id].status != status:
            line = f"trial {frozen.number} is {frozen.state.name}, its run {runs[run_id].status}: now {status}"
            tags = {"optuna_state": frozen.state.name}
            yield _Finding(line, partial(self._tracker.set_status, run_id, status, tags))

    def _is_left_over(self, run: Run, trials: list[FrozenTrial]) -> bool:
        tags = run.tags
        if tags.get("optuna_study") != self._study.study_name or not tags.get("optuna_trial", "").isdigit():
            return False
        number = int(tags["optuna_trial"])
        # Of a living study, a run may be so young that its trial does not know it yet.
        return number not in self._seen and (
            not self._alive or (number < len(trials) and trials[number].state.is_finished())
        )

    def _record_anew(self, frozen: FrozenTrial, experiment_id: str) -> None:
        self._outbox(frozen).discard()
        outbox = Outbox(self._of(frozen.number), self._tracker)
        tags = {
            "optuna_trial": str(frozen.number),
            "optuna_study": self._study.study_name,
            "agent": str(self._study.user_attrs["agent"]),
            "optuna_state": frozen.state.name,
            "recorded_anew": "true",
        }
        outbox.write("start_run", experiment_id=experiment_id, name=f"trial_{frozen.number}", tags=tags)
        outbox.write("log_params", params=frozen.params)
        monitor = self._study.user_attrs["monitor"]
        for epoch, value in frozen.intermediate_values.items():
            outbox.write("log_metrics", metrics={monitor: value, "epoch": epoch}, step=epoch)
        if frozen.state == TrialState.COMPLETE:
            final = {"final_metric": frozen.value, "best_epoch": frozen.user_attrs.get("best_epoch", 0)}
            outbox.write("log_metrics", metrics=final, step=0)
        outbox.write("set_status", status=RUN_STATUS[frozen.state], tags={})
        if outbox.run_id is not None:
            keep_run_id(self._study, frozen, outbox.run_id)
        if frozen.state.is_finished():
            outbox.close()

    def _checkpoints(self) -> Iterator[_Finding]:
        for path in unowned_checkpoints(self._study, self._folder):
            yield _Finding(f"{path.parent.name}/{path.name} is of no use to any trial: removed", path.unlink)

    def _outbox(self, frozen: FrozenTrial) -> Outbox:
        return Outbox(self._of(frozen.number), self._tracker, run_id_of(self._study, frozen))

    def _of(self, number: int) -> Path:
        return self._folder / f"trial_{number}"
