"""Progress of a study: bars on a terminal, plain lines elsewhere."""

import time

import optuna
from optuna.trial import TrialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from lightning_hpo.data.split_sizes import recorded_sizes, split_lines
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.objective import comparable_baselines, score_text
from lightning_hpo.study.callback import StudyCallback
from lightning_hpo.study.eta import duration
from lightning_hpo.study.lines import listed, outcome_line
from lightning_hpo.study.session import Session
from lightning_hpo.trial import messages
from lightning_hpo.trial.outcome import Outcome

__all__ = ["ProgressDisplay"]

_SILENT_S = 60.0


class ProgressDisplay(StudyCallback):
    """Shows one bar for the study (trials, best value, time left) and one for each running trial."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._live = session.console.is_terminal
        self._total, self._monitor = session.spec.settings.n_trials, session.spec.settings.monitor
        self._started: dict[int, float] = {}
        self._signed: dict[int, float] = {}
        self._shown_epoch: dict[int, int] = {}
        self._tasks: dict[int, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]} {task.fields[silent]}"),
            console=session.console,
            transient=True,
            disable=not self._live,
        )
        self._study = self._progress.add_task("study", total=self._total, note="", silent="")

    def on_study_start(self) -> None:
        """Show what the study starts from, and the bars."""
        self._progress.start()
        self._update()
        attributes = self._session.study.user_attrs
        if counts := attributes[StudyKey.DATA_COUNTS]:
            self._session.say(f"data: {listed(counts)}")
        if sizes := recorded_sizes(attributes.get(StudyKey.SPLIT_SIZES, {})):
            for line in split_lines(attributes[StudyKey.SPLIT_RULE], sizes):
                self._session.say(line)
        if baselines := comparable_baselines(attributes):
            values = ", ".join(f"{name} {score_text(value)}" for name, value in baselines.items())
            self._session.say(f"baselines: {values}")
        if warm_start := self._session.spec.warm_start:
            self._session.say(warm_start.line(attributes))

    def on_study_end(self) -> None:
        """Remove the bars."""
        self._progress.stop()

    def on_trial_start(self, trial: optuna.Trial, *, resumed: bool) -> None:
        """Show a bar for the trial."""
        number = trial.number
        if number not in self._tasks:
            self._tasks[number] = self._progress.add_task(f"trial {number}", total=1.0, note="starting", silent="")
        self._started[number] = self._signed[number] = time.monotonic()
        if not self._live:
            self._session.say(f"trial {number} {'resumes' if resumed else 'starts'}")

    def on_message(self, trial: optuna.Trial, message: messages.Message) -> None:
        """Show how far the trial is, or a line from it."""
        self._signed[trial.number] = time.monotonic()
        match message:
            case messages.Progress():
                self._show(trial.number, message)
            case messages.Notice(text):
                self._session.say(f"trial {trial.number} {text}")

    def _show(self, number: int, progress: messages.Progress) -> None:
        shown = "" if progress.metric is None else f"{self._monitor} {score_text(progress.metric)}"
        completed = round(progress.epoch + progress.share, 2)
        epochs = None if progress.epochs == -1 else progress.epochs
        self._progress.update(self._tasks[number], total=epochs, completed=completed, note=shown)
        if progress.share < 1.0:
            return
        self._update()
        if not self._live and self._shown_epoch.get(number) != progress.epoch:
            self._shown_epoch[number] = progress.epoch
            self._session.say(f"trial {number} epoch {progress.epoch + 1}/{epochs or '?'} {shown}".rstrip())

    def on_wait(self) -> None:
        """Mark the bars of trials that have given no sign of life for a minute."""
        now = time.monotonic()
        for number, signed in self._signed.items():
            silent = f"no sign of life for {duration(now - signed)}" if now - signed >= _SILENT_S else ""
            self._progress.update(self._tasks[number], silent=silent)

    def on_trial_end(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Remove the trial's bar and show its outcome."""
        del state
        self._progress.remove_task(self._tasks.pop(trial.number))
        del self._started[trial.number], self._signed[trial.number]
        self._update()
        done = "" if self._live else f"  [{self._session.done}/{self._total}{self._note()}]"
        self._session.say(f"trial {trial.number} {outcome_line(outcome, self._monitor)}{done}")

    def _update(self) -> None:
        self._progress.update(self._study, completed=self._session.done, note=self._note())

    def _note(self) -> str:
        session = self._session
        best = "" if session.best is None else f"  best {self._monitor} {score_text(session.best)}"
        now = time.monotonic()
        left = session.eta.left([now - started for started in self._started.values()])
        return best if left is None or session.done >= self._total else f"{best}  {duration(left)} left"
