"""The study loop: ask for a trial, train it in a process of its own, tell how it ended."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo import registry
from lightning_hpo.checks import check_settings, check_start
from lightning_hpo.claim import claimed
from lightning_hpo.config import flags, with_flags
from lightning_hpo.databases import masked
from lightning_hpo.devices import CardUse, leased_cards, visible_cards
from lightning_hpo.endings import RUN_ID, RUNTIME, Ending, Outcome, conclude, kept_outcome
from lightning_hpo.exceptions import InputError, LightningHpoError, StorageAwayError
from lightning_hpo.job import Job
from lightning_hpo.journal import Journal
from lightning_hpo.pace import Pace
from lightning_hpo.reconciliation import Reconciliation, send
from lightning_hpo.samplers import build_sampler
from lightning_hpo.screen import Screen, ending_line, result_line
from lightning_hpo.study import create_study
from lightning_hpo.study_line import Adviser, Question, Written
from lightning_hpo.tracking import AWAY, Tracker, environment_tags
from lightning_hpo.trial import TrialOrder, run_trial
from lightning_hpo.trial_config import halve_batch, keep_config
from lightning_hpo.trial_files import CONFIG
from lightning_hpo.weights import Weights
from lightning_hpo.workers import Death, Workers

__all__ = ["Drawn", "describe", "ended_in_a_line", "train", "tune", "workers_for"]

Drawn = tuple[Mapping[str, Any], dict[str, Any]]
_HALVINGS = "batch_halvings"
_EXHAUSTED = "exhausted"
_TICK_S = 5.0


def workers_for(job: Job) -> Workers:
    """The processes for its trials, on the cards that they shall be given."""
    settings = job.settings
    cards = leased_cards(settings.devices, job.config["trainer"].get("accelerator"), visible_cards())
    return Workers(settings.workers, cards, settings.per_device)


def tune(job: Job, workers: Workers) -> int:
    """Run the study until it has all its trials, its time is over, or someone stops it.

    Args:
        job: The study.
        workers: The processes for its trials.

    Returns:
        The command's exit code: 0, or 128 and the signal's number when a signal stopped it.

    Raises:
        InputError: If the study cannot start; nothing has been written then.
        LightningHpoError: If too many trials in a row have failed, or the best model cannot be registered.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    job, space, pruner = check_settings(job)
    with claimed(job.settings.folder) as known, ended_in_a_line(workers):
        about = check_start(job, space, workers, known=known)
        tracker = Tracker(str(job.settings.tracking_uri))
        experiment = tracker.experiment(job.experiment)  # first: while MLflow is away, there is to be no study
        first = space.first_points(job.stage.points if job.stage else ())
        study = create_study(job.settings, build_sampler(job.sampler, job.settings.seed, first), pruner)
        describe(study, about)

        def draw(trial: optuna.Trial) -> Drawn:
            sampled = space.suggest(trial)
            # Not `auto`: the trial's config shall make the same on a device that would choose another. Every value is
            # checked in the trial's process, which parses them.
            return sampled, with_flags(job.config, {"trainer.precision": about["precision"], **sampled})

        return train(job, study, tracker, experiment, workers, draw)


def train(
    job: Job,
    study: optuna.Study,
    tracker: Tracker,
    experiment: str,
    workers: Workers,
    draw: Callable[[optuna.Trial], Drawn],
) -> int:
    """Train a study's trials until it has all of them, and register the best model if it shall be.

    Args:
        job: The study.
        study: Optuna's side of it; its folder is claimed.
        tracker: MLflow's side of it.
        experiment: Id of its experiment there.
        workers: The processes for its trials.
        draw: Gives the drawn values of a trial by their names, and its config.

    Returns:
        The command's exit code.
    """
    mended = Reconciliation(study, tracker, alive=False).run()
    loop = _Loop(job, study, tracker, experiment, workers, draw)
    with loop.screen:
        for line in mended:
            loop.screen.say(line)
        loop.run()
        if loop.send_all() and loop.complete:
            _register(job, study, tracker, workers, loop.screen)
        return loop.conclude()


@contextmanager
def ended_in_a_line(workers: Workers) -> Iterator[None]:
    """When a database, MLflow or the disk gives out where it is needed: end the trials, and say why."""
    try:
        yield
    except (*AWAY, sqlite3.Error, StorageInternalError, StorageAwayError) as error:
        workers.kill()
        for trial in workers.running:
            workers.join(trial)
        if isinstance(error, LightningHpoError):
            raise
        cause: BaseException = error
        while isinstance(cause, StorageInternalError) and cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next(iter(masked(str(getattr(cause, "orig", None) or cause)).splitlines()), "")
        raise LightningHpoError(
            f"{type(cause).__name__}: {reason}; what ran was ended, and the same command goes on with it"
        ) from error


def describe(study: optuna.Study, about: Mapping[str, Any]) -> None:
    """Let the study say of itself what it does not say yet."""
    for key, value in about.items():
        if key not in study.user_attrs or study.user_attrs[key] != value:
            study.set_user_attr(key, value)


def _register(job: Job, study: optuna.Study, tracker: Tracker, workers: Workers, screen: Screen) -> None:
    if job.settings.register:
        screen.say("registering the best model, and scoring it in a fresh process")
        try:
            screen.say(registry.register(study, tracker, workers))
        except AWAY as error:
            again = f"lightning-hpo register --study {study.study_name}"
            screen.say(
                f"not registered, since MLflow does not answer ({type(error).__name__}): `{again}` does it later"
            )


class _Loop:
    def __init__(
        self,
        job: Job,
        study: optuna.Study,
        tracker: Tracker,
        experiment: str,
        workers: Workers,
        draw: Callable[[optuna.Trial], Drawn],
    ) -> None:
        self._job, self._settings, self._draw = job, job.settings, draw
        self._study, self._tracker, self._workers = study, tracker, workers
        self._weights = Weights(study, tracker, job.settings.folder, job.settings.keep)
        self._experiment = experiment
        self._unsent: set[int] = set()
        self._unsettled: list[tuple[int, TrialState, float | None, str | None]] = []
        self._journals: dict[int, Journal] = {}
        self._advisers: dict[int, Adviser] = {}
        self._about = study.user_attrs
        self._best = _best_value(study)
        self._environment = environment_tags()
        ended = study.get_trials(deepcopy=False, states=job.counted)
        self._ended = len(ended)
        self._failed_in_a_row: list[str] = []
        self._deadline = None if job.settings.timeout is None else time.monotonic() + job.settings.timeout
        self._signal = 0
        self._killed = False
        self._over_time = False
        self._unwritable = ""
        self._exhausted = bool(study.user_attrs.get(_EXHAUSTED))
        self._pace = Pace(job.settings.n_trials, workers.count, None if job.endless else job.epochs)
        for trial in ended:
            self._pace.add(*_measured(trial))
        self._cost_said = self._fitting_said = False
        self.screen = Screen(job.settings.n_trials, self._ended, job.settings.monitor, self._pace)

    @property
    def complete(self) -> bool:
        """Whether the study has all its trials, or its sampler nothing left to draw."""
        return self._exhausted or self._ended >= self._settings.n_trials

    def run(self) -> None:
        """Ask, train, tell; until enough trials have ended."""
        self._introduce()
        with self._signals():
            while True:
                while self._workers.free and self._wants_more():
                    self._start(self._study.ask())
                self._settle_weights()
                if not self._workers.running:
                    self._workers.see_off()
                    return
                for trial, message in self._workers.wait(self._patience()):
                    self._hear(trial, message)
                self._send_waiting()

    def conclude(self) -> int:
        """Say how the study stands, and give the exit code."""
        if self._job.search_space:  # the best of what was not searched is the luckiest
            self.screen.say(result_line(self._study))
        if len(self._failed_in_a_row) >= self._settings.max_failures:
            raise LightningHpoError(
                f"{len(self._failed_in_a_row)} trials in a row have failed, the last one: {self._failed_in_a_row[-1]}; "
                f"see {self._settings.folder}/trial_*/log.txt; more are allowed by --study.max_failures"
            )
        if self._unwritable:
            raise LightningHpoError(
                f"{self._settings.folder}: {self._unwritable}; the running trials are parked, and once there is room "
                "the same command goes on"
            )
        if self._signal or self._over_time:
            why = "the time is over" if self._over_time else "stopped"
            self.screen.say(f"{why}: the same command goes on with trial, run and checkpoint where they are")
        return 128 + self._signal if self._signal else 0

    def _introduce(self) -> None:
        self.screen.best_is(self._best)
        counts = self._about["data_counts"]
        if counts:
            self.screen.say(f"data: {_listed(counts)}")
        answers = self._about["constant_answers"]
        if answers:
            self.screen.say("constant answers: " + ", ".join(f"{name} {value:.4f}" for name, value in answers.items()))
        if self._job.stage is not None:
            self.screen.say(self._job.stage.line(self._study.user_attrs))
        self._say_cost()

    def _say_cost(self) -> None:
        """Say once what the study will cost: as soon as it is known, before it goes on."""
        cost = self._pace.expected(prunes=not isinstance(self._study.pruner, optuna.pruners.NopPruner))
        if cost is not None and not self._cost_said and not self._stopping:
            self._cost_said = True
            self.screen.say(f"expected: {cost}")

    @property
    def _stopping(self) -> bool:
        return bool(self._signal) or self._over_time or bool(self._unwritable)

    def _wants_more(self) -> bool:
        stopped = self._stopping or self._exhausted or len(self._failed_in_a_row) >= self._settings.max_failures
        return not stopped and self._ended + len(self._workers.running) < self._settings.n_trials

    def _start(self, trial: optuna.Trial) -> None:
        asked = time.time()
        self._unsent.discard(trial.number)  # its own process sends now
        journal = self._journal(trial)
        self.screen.started(trial.number, resumed=journal.begun)
        try:
            order = self._order(trial, journal, asked)
        except InputError as error:
            self._end(trial, Outcome(Ending.FAILED, reason=error.problems[0]))
            return
        self._workers.start(trial, run_trial, order, log=order.folder / "log.txt")
        journal.send()  # while the trial makes its model and its data
        if self._stopping:  # since this trial was asked for
            self._workers.ask_to_stop()

    def _journal(self, trial: optuna.Trial) -> Journal:
        if trial.number not in self._journals:
            folder = (self._settings.folder / f"trial_{trial.number}").absolute()
            self._journals[trial.number] = Journal(folder, self._tracker, trial.user_attrs.get(RUN_ID))
        return self._journals[trial.number]

    def _begin(self, trial: optuna.Trial, journal: Journal) -> None:
        tags = {
            "optuna_trial": str(trial.number),
            "optuna_study": str(self._settings.name),
            "agent": self._job.agent,
            "optuna_state": TrialState.RUNNING.name,
            "data_fingerprint": str(self._about["data_fingerprint"]),
            "data_counts": _listed(self._about["data_counts"]),
            **self._environment,
            **self._job.tags,
        }
        journal.write("start_run", experiment_id=self._experiment, name=f"trial_{trial.number}", tags=tags)
        if journal.run_id is not None:
            trial.set_user_attr(RUN_ID, journal.run_id)

    def _order(self, trial: optuna.Trial, journal: Journal, asked: float) -> TrialOrder:
        if not journal.begun:
            self._begin(trial, journal)
        self._configure(trial, journal)
        return TrialOrder(
            tracking_uri=str(self._settings.tracking_uri),
            run_id=journal.run_id,
            folder=journal.folder,
            monitor=self._settings.monitor,
            mode=self._settings.mode,
            threads=max(1, len(os.sched_getaffinity(0)) // self._workers.count),  # those that this process may use
            checkpoint_s=60 * self._settings.checkpoint_minutes,
            asked=asked,
        )

    def _configure(self, trial: optuna.Trial, journal: Journal) -> None:
        """Write the trial's config into its folder and tell it to its run; a resumed trial keeps what it has."""
        if (journal.folder / CONFIG).exists():
            return
        sampled, config = self._draw(trial)
        rest = {name: value for name, value in flags(config).items() if value is not None}
        journal.note("log_params", params={**rest, **sampled})
        keep_config(journal, config)

    def _hear(self, trial: optuna.Trial, message: Any) -> None:
        match message:
            case Question():
                self._workers.answer(trial, self._adviser(trial).answer(message))
            case Written():
                self._journal(trial).send()
            case CardUse():
                self._say_fitting(trial, message)
            case str():
                self.screen.say(f"trial {trial.number} {message}")
            case Outcome():
                self._workers.leave(trial)
                self._hear_outcome(trial, message)
            case Death():
                self._hear_outcome(trial, self._outcome_of(trial, message))
            case _:
                self.screen.trains(trial.number, *message)

    def _say_fitting(self, trial: optuna.Trial, use: CardUse) -> None:
        """Say once how many trials a card bears, where that is more than it is given."""
        if not self._fitting_said and use.fitting > self._settings.per_device:
            self._fitting_said = True
            self.screen.say(f"trial {trial.number}: {use.advice}")

    def _hear_outcome(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.ending is Ending.OUT_OF_MEMORY and not self._stopping and self._halve(trial):
            self._start(trial)
        else:
            self._end(trial, outcome)

    def _adviser(self, trial: optuna.Trial) -> Adviser:
        if trial.number not in self._advisers:
            self._advisers[trial.number] = Adviser(self._study, trial._trial_id, self._leads)
        return self._advisers[trial.number]

    def _leads(self, value: float) -> bool:
        return self._best is None or (value > self._best if self._settings.mode == "max" else value < self._best)

    def _outcome_of(self, trial: optuna.Trial, death: Death) -> Outcome:
        kept = kept_outcome(self._journal(trial).folder)
        if kept is not None:  # it died after all was done
            return kept
        if self._stopping:  # the signal may have reached the whole group, the server of the processes too
            return Outcome(Ending.INTERRUPTED, reason="interrupted")
        return Outcome(Ending.DIED, reason=death.reason)

    def _halve(self, trial: optuna.Trial) -> bool:
        batch = halve_batch(self._journal(trial)) if self._settings.halve_on_oom else None
        if batch is None:
            return False
        trial.set_user_attr(_HALVINGS, trial.user_attrs.get(_HALVINGS, 0) + 1)
        self.screen.say(f"trial {trial.number} is out of memory: again with batches of {batch}")
        return True

    def _end(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.stops_study:
            self._unwritable = outcome.reason
            self._workers.ask_to_stop()
        journal = self._journal(trial)
        state = conclude(self._study, trial, journal, outcome)
        if journal.pending:
            self._unsent.add(trial.number)
        self._send_waiting()
        del self._journals[trial.number]
        self._advisers.pop(trial.number, None)
        if state.is_finished():
            self._unsettled.append((trial.number, state, outcome.value, outcome.model_uri))
        if state in self._job.counted:
            self._ended += 1
            self._pace.add(*_measured(self._study._storage.get_trial(trial._trial_id)))
        if state == TrialState.COMPLETE and outcome.value is not None and self._leads(outcome.value):
            self._best = outcome.value
        if state == TrialState.FAIL:
            self._failed_in_a_row.append(outcome.reason)
        elif state.is_finished():
            self._failed_in_a_row.clear()
        if getattr(self._study.sampler, "exhausted", False) and not self._exhausted:
            self._exhausted = True
            self._study.set_user_attr(_EXHAUSTED, True)
            self.screen.say("the sampler has drawn everything that there is")
        self.screen.best_is(self._best)
        self.screen.ended(trial.number, ending_line(outcome, self._settings.monitor), state in self._job.counted)
        self._say_cost()

    def _settle_weights(self) -> None:
        """Drop weights that are no longer needed: once the next trials have started, since it takes its time."""
        while self._unsettled:
            self._weights.settle(*self._unsettled.pop(0))

    def send_all(self) -> bool:
        """Send what MLflow did not take, and say so where it still takes nothing."""
        self._send_waiting(now=True)
        if self._unsent:
            self.screen.say(
                f"MLflow does not answer, and has not got everything of {len(self._unsent)} trials; when it does, the "
                "same command sends it and registers the best model"
            )
        return not self._unsent

    def _send_waiting(self, *, now: bool = False) -> None:
        """Send what MLflow did not take of trials that have ended."""
        trials = self._study.get_trials(deepcopy=False) if self._unsent else []
        for number in sorted(self._unsent):
            if send(self._study, self._tracker, trials[number], now=now):
                self._unsent.remove(number)

    def _patience(self) -> float | None:
        tick = _TICK_S if self._unsent else None
        if self._deadline is None or self._over_time:
            return tick
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._over_time = True
            self._workers.ask_to_stop()
            return tick
        return left if tick is None else min(left, tick)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._killed:  # what is left to do waits, for a database perhaps: the next call does it
            raise KeyboardInterrupt
        if self._signal:
            self._killed = True
            self._workers.kill()
            return
        self._signal = number
        self.screen.say("stopping: the running trials are parked at their next batch; once more stops at once")
        self._workers.ask_to_stop()


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _measured(trial: FrozenTrial) -> tuple[float, int]:
    """Seconds and validated epochs of a trial; a study from elsewhere knows only when it began and ended."""
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return trial.user_attrs.get(RUNTIME, seconds), len(trial.intermediate_values)


def _best_value(study: optuna.Study) -> float | None:
    try:
        return study.best_value
    except ValueError:
        return None
