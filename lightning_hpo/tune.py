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

from lightning_hpo.config.agent_cli import flags, with_flags
from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LightningHpoError, StorageAwayError
from lightning_hpo.hardware.gpus import leased_gpus, visible_gpus
from lightning_hpo.hardware.memory import GpuUse
from lightning_hpo.registry import register as registry
from lightning_hpo.search.samplers import build_sampler
from lightning_hpo.storage.studies import create_study
from lightning_hpo.study.checks import check_settings, check_start
from lightning_hpo.study.eta import TimeEstimator
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.progress import ProgressDisplay, ending_line, result_line
from lightning_hpo.study.reconciliation import Reconciliation, send
from lightning_hpo.study.recorder import RUN_ID, RUNTIME, Outcome, OutcomeKind, conclude, kept_outcome
from lightning_hpo.study.retention import CheckpointRetention
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import CONFIG
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import AWAY, Tracker, environment_tags
from lightning_hpo.trial.config import halve_batch, keep_config
from lightning_hpo.trial.remote_trial import Question, TrialServer, Written
from lightning_hpo.trial.run import TrialTask, run_trial

__all__ = ["Drawn", "describe", "exit_with_one_line_error", "train", "tune", "workers_for"]

Drawn = tuple[Mapping[str, Any], dict[str, Any]]
_HALVINGS = "batch_halvings"
_EXHAUSTED = "exhausted"
_TICK_S = 5.0


def workers_for(spec: StudySpec) -> Workers:
    """The processes for its trials, on the gpus that they shall be given."""
    settings = spec.settings
    gpus = leased_gpus(settings.devices, spec.config["trainer"].get("accelerator"), visible_gpus())
    return Workers(settings.workers, gpus, settings.per_device)


def tune(spec: StudySpec, workers: Workers) -> int:
    """Run the study until it has all its trials, its time is over, or someone stops it.

    Args:
        spec: The study.
        workers: The processes for its trials.

    Returns:
        The command's exit code: 0, or 128 and the signal's number when a signal stopped it.

    Raises:
        InputError: If the study cannot start; nothing has been written then.
        LightningHpoError: If too many trials in a row have failed, or the best model cannot be registered.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spec, space, pruner = check_settings(spec)
    with lock_study(spec.settings.folder) as known, exit_with_one_line_error(workers):
        about = check_start(spec, space, workers, known=known)
        tracker = Tracker(str(spec.settings.tracking_uri))
        experiment = tracker.experiment(spec.experiment)  # first: while MLflow is away, there is to be no study
        first = space.first_points(spec.warm_start.points if spec.warm_start else ())
        study = create_study(spec.settings, build_sampler(spec.sampler, spec.settings.seed, first), pruner)
        describe(study, about)

        def draw(trial: optuna.Trial) -> Drawn:
            sampled = space.suggest(trial)
            # Not `auto`: the trial's config shall make the same on a device that would choose another. Every value is
            # checked in the trial's process, which parses them.
            return sampled, with_flags(spec.config, {"trainer.precision": about["precision"], **sampled})

        return train(spec, study, tracker, experiment, workers, draw)


def train(
    spec: StudySpec,
    study: optuna.Study,
    tracker: Tracker,
    experiment: str,
    workers: Workers,
    draw: Callable[[optuna.Trial], Drawn],
) -> int:
    """Train a study's trials until it has all of them, and register the best model if it shall be.

    Args:
        spec: The study.
        study: Optuna's side of it; its folder is lock_study.
        tracker: MLflow's side of it.
        experiment: Id of its experiment there.
        workers: The processes for its trials.
        draw: Gives the drawn values of a trial by their names, and its config.

    Returns:
        The command's exit code.
    """
    mended = Reconciliation(study, tracker, alive=False).run()
    loop = _Loop(spec, study, tracker, experiment, workers, draw)
    with loop.display:
        for line in mended:
            loop.display.say(line)
        loop.run()
        if loop.send_all() and loop.complete:
            _register(spec, study, tracker, workers, loop.display)
        return loop.conclude()


@contextmanager
def exit_with_one_line_error(workers: Workers) -> Iterator[None]:
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


def _register(
    spec: StudySpec, study: optuna.Study, tracker: Tracker, workers: Workers, display: ProgressDisplay
) -> None:
    if spec.settings.register:
        display.say("registering the best model, and scoring it in a fresh process")
        try:
            display.say(registry.register(study, tracker, workers))
        except AWAY as error:
            again = f"lightning-hpo register --study {study.study_name}"
            display.say(
                f"not registered, since MLflow does not answer ({type(error).__name__}): `{again}` does it later"
            )


class _Loop:
    def __init__(
        self,
        spec: StudySpec,
        study: optuna.Study,
        tracker: Tracker,
        experiment: str,
        workers: Workers,
        draw: Callable[[optuna.Trial], Drawn],
    ) -> None:
        self._spec, self._settings, self._draw = spec, spec.settings, draw
        self._study, self._tracker, self._workers = study, tracker, workers
        self._weights = CheckpointRetention(study, tracker, spec.settings.folder, spec.settings.keep)
        self._experiment = experiment
        self._unsent: set[int] = set()
        self._unsettled: list[tuple[int, TrialState, float | None, str | None]] = []
        self._outboxes: dict[int, Outbox] = {}
        self._trial_servers: dict[int, TrialServer] = {}
        self._about = study.user_attrs
        self._best = _best_value(study)
        self._environment = environment_tags()
        ended = study.get_trials(deepcopy=False, states=spec.counted)
        self._ended = len(ended)
        self._failed_in_a_row: list[str] = []
        self._deadline = None if spec.settings.timeout is None else time.monotonic() + spec.settings.timeout
        self._signal = 0
        self._killed = False
        self._over_time = False
        self._unwritable = ""
        self._exhausted = bool(study.user_attrs.get(_EXHAUSTED))
        self._eta = TimeEstimator(spec.settings.n_trials, workers.count, None if spec.endless else spec.epochs)
        for trial in ended:
            self._eta.add(*_measured(trial))
        self._cost_said = self._fitting_said = False
        self.display = ProgressDisplay(spec.settings.n_trials, self._ended, spec.settings.monitor, self._eta)

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
                    self._workers.reap()
                    return
                for trial, message in self._workers.wait(self._patience()):
                    self._hear(trial, message)
                self._send_waiting()

    def conclude(self) -> int:
        """Say how the study stands, and give the exit code."""
        if self._spec.search_space:  # the best of what was not searched is the luckiest
            self.display.say(result_line(self._study))
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
            self.display.say(f"{why}: the same command goes on with trial, run and checkpoint where they are")
        return 128 + self._signal if self._signal else 0

    def _introduce(self) -> None:
        self.display.best_is(self._best)
        counts = self._about["data_counts"]
        if counts:
            self.display.say(f"data: {_listed(counts)}")
        answers = self._about["constant_answers"]
        if answers:
            self.display.say("constant answers: " + ", ".join(f"{name} {value:.4f}" for name, value in answers.items()))
        if self._spec.warm_start is not None:
            self.display.say(self._spec.warm_start.line(self._study.user_attrs))
        self._say_cost()

    def _say_cost(self) -> None:
        """Say once what the study will cost: as soon as it is known, before it goes on."""
        cost = self._eta.expected(prunes=not isinstance(self._study.pruner, optuna.pruners.NopPruner))
        if cost is not None and not self._cost_said and not self._stopping:
            self._cost_said = True
            self.display.say(f"expected: {cost}")

    @property
    def _stopping(self) -> bool:
        return bool(self._signal) or self._over_time or bool(self._unwritable)

    def _wants_more(self) -> bool:
        stopped = self._stopping or self._exhausted or len(self._failed_in_a_row) >= self._settings.max_failures
        return not stopped and self._ended + len(self._workers.running) < self._settings.n_trials

    def _start(self, trial: optuna.Trial) -> None:
        asked = time.time()
        self._unsent.discard(trial.number)  # its own process sends now
        outbox = self._outbox(trial)
        self.display.started(trial.number, resumed=outbox.begun)
        try:
            task = self._task(trial, outbox, asked)
        except InputError as error:
            self._end(trial, Outcome(OutcomeKind.FAILED, reason=error.problems[0]))
            return
        self._workers.start(trial, run_trial, task, log=task.folder / "log.txt")
        outbox.send()  # while the trial makes its model and its data
        if self._stopping:  # since this trial was asked for
            self._workers.ask_to_stop()

    def _outbox(self, trial: optuna.Trial) -> Outbox:
        if trial.number not in self._outboxes:
            folder = (self._settings.folder / f"trial_{trial.number}").absolute()
            self._outboxes[trial.number] = Outbox(folder, self._tracker, trial.user_attrs.get(RUN_ID))
        return self._outboxes[trial.number]

    def _begin(self, trial: optuna.Trial, outbox: Outbox) -> None:
        tags = {
            "optuna_trial": str(trial.number),
            "optuna_study": str(self._settings.name),
            "agent": self._spec.agent,
            "optuna_state": TrialState.RUNNING.name,
            "data_fingerprint": str(self._about["data_fingerprint"]),
            "data_counts": _listed(self._about["data_counts"]),
            **self._environment,
            **self._spec.tags,
        }
        outbox.write("start_run", experiment_id=self._experiment, name=f"trial_{trial.number}", tags=tags)
        if outbox.run_id is not None:
            trial.set_user_attr(RUN_ID, outbox.run_id)

    def _task(self, trial: optuna.Trial, outbox: Outbox, asked: float) -> TrialTask:
        if not outbox.begun:
            self._begin(trial, outbox)
        self._configure(trial, outbox)
        return TrialTask(
            tracking_uri=str(self._settings.tracking_uri),
            run_id=outbox.run_id,
            folder=outbox.folder,
            monitor=self._settings.monitor,
            mode=self._settings.mode,
            threads=max(1, len(os.sched_getaffinity(0)) // self._workers.count),  # those that this process may use
            checkpoint_s=60 * self._settings.checkpoint_minutes,
            asked=asked,
        )

    def _configure(self, trial: optuna.Trial, outbox: Outbox) -> None:
        """Write the trial's config into its folder and tell it to its run; a resumed trial keeps what it has."""
        if (outbox.folder / CONFIG).exists():
            return
        sampled, config = self._draw(trial)
        rest = {name: value for name, value in flags(config).items() if value is not None}
        outbox.note("log_params", params={**rest, **sampled})
        keep_config(outbox, config)

    def _hear(self, trial: optuna.Trial, message: Any) -> None:
        match message:
            case Question():
                self._workers.answer(trial, self._trial_server(trial).answer(message))
            case Written():
                self._outbox(trial).send()
            case GpuUse():
                self._say_fitting(trial, message)
            case str():
                self.display.say(f"trial {trial.number} {message}")
            case Outcome():
                self._workers.leave(trial)
                self._hear_outcome(trial, message)
            case ProcessExit():
                self._hear_outcome(trial, self._outcome_of(trial, message))
            case _:
                self.display.trains(trial.number, *message)

    def _say_fitting(self, trial: optuna.Trial, use: GpuUse) -> None:
        """Say once how many trials a gpu bears, where that is more than it is given."""
        if not self._fitting_said and use.fitting > self._settings.per_device:
            self._fitting_said = True
            self.display.say(f"trial {trial.number}: {use.advice}")

    def _hear_outcome(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.ending is OutcomeKind.OUT_OF_MEMORY and not self._stopping and self._halve(trial):
            self._start(trial)
        else:
            self._end(trial, outcome)

    def _trial_server(self, trial: optuna.Trial) -> TrialServer:
        if trial.number not in self._trial_servers:
            self._trial_servers[trial.number] = TrialServer(self._study, trial._trial_id, self._leads)
        return self._trial_servers[trial.number]

    def _leads(self, value: float) -> bool:
        return self._best is None or (value > self._best if self._settings.mode == "max" else value < self._best)

    def _outcome_of(self, trial: optuna.Trial, death: ProcessExit) -> Outcome:
        kept = kept_outcome(self._outbox(trial).folder)
        if kept is not None:  # it died after all was done
            return kept
        if self._stopping:  # the signal may have reached the whole group, the server of the processes too
            return Outcome(OutcomeKind.INTERRUPTED, reason="interrupted")
        return Outcome(OutcomeKind.DIED, reason=death.reason)

    def _halve(self, trial: optuna.Trial) -> bool:
        batch = halve_batch(self._outbox(trial)) if self._settings.halve_on_oom else None
        if batch is None:
            return False
        trial.set_user_attr(_HALVINGS, trial.user_attrs.get(_HALVINGS, 0) + 1)
        self.display.say(f"trial {trial.number} is out of memory: again with batches of {batch}")
        return True

    def _end(self, trial: optuna.Trial, outcome: Outcome) -> None:
        if outcome.stops_study:
            self._unwritable = outcome.reason
            self._workers.ask_to_stop()
        outbox = self._outbox(trial)
        state = conclude(self._study, trial, outbox, outcome)
        if outbox.pending:
            self._unsent.add(trial.number)
        self._send_waiting()
        del self._outboxes[trial.number]
        self._trial_servers.pop(trial.number, None)
        if state.is_finished():
            self._unsettled.append((trial.number, state, outcome.value, outcome.model_uri))
        if state in self._spec.counted:
            self._ended += 1
            self._eta.add(*_measured(self._study._storage.get_trial(trial._trial_id)))
        if state == TrialState.COMPLETE and outcome.value is not None and self._leads(outcome.value):
            self._best = outcome.value
        if state == TrialState.FAIL:
            self._failed_in_a_row.append(outcome.reason)
        elif state.is_finished():
            self._failed_in_a_row.clear()
        if getattr(self._study.sampler, "exhausted", False) and not self._exhausted:
            self._exhausted = True
            self._study.set_user_attr(_EXHAUSTED, True)
            self.display.say("the sampler has drawn everything that there is")
        self.display.best_is(self._best)
        self.display.ended(trial.number, ending_line(outcome, self._settings.monitor), state in self._spec.counted)
        self._say_cost()

    def _settle_weights(self) -> None:
        """Drop weights that are no longer needed: once the next trials have started, since it takes its time."""
        while self._unsettled:
            self._weights.settle(*self._unsettled.pop(0))

    def send_all(self) -> bool:
        """Send what MLflow did not take, and say so where it still takes nothing."""
        self._send_waiting(now=True)
        if self._unsent:
            self.display.say(
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
        self.display.say("stopping: the running trials are parked at their next batch; once more stops at once")
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
