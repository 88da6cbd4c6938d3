"""An open study: checked, locked, reconciled, with both databases and its workers."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from lightning_hpo.config.flags import flags, with_flags
from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LightningHpoError, StorageAwayError
from lightning_hpo.hardware.gpus import leased_gpus, visible_gpus
from lightning_hpo.search.samplers import build_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.attributes import StudyKey, TrialKey, update_attributes
from lightning_hpo.storage.optuna_private import stored_trial
from lightning_hpo.storage.studies import StudyDatabase, ranked
from lightning_hpo.study.checks import check_settings, check_start
from lightning_hpo.study.encoder_revisions import NAME, REVISION
from lightning_hpo.study.eta import TimeEstimator
from lightning_hpo.study.lines import result_line
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.outboxes import Outboxes
from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.study.spec import Sample, StudySpec
from lightning_hpo.study.stopping import Stopping
from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.study.workers import LocalWorkers, Workers
from lightning_hpo.tracking.environment import environment_tags
from lightning_hpo.tracking.tracker import AWAY, Tracker
from lightning_hpo.trial.outcome import Outcome

__all__ = ["Session", "exit_with_one_line_error", "local_workers", "open_session"]

_TICK_S = 5.0


def local_workers(spec: StudySpec) -> LocalWorkers:
    """Return workers on this machine, with the GPUs that the study's settings give them."""
    settings = spec.settings
    gpus = leased_gpus(settings.devices, spec.config["trainer"].get("accelerator"), visible_gpus())
    return LocalWorkers(settings.workers, gpus, settings.per_device)


@contextmanager
def open_session(spec: StudySpec, workers: Workers, database: StudyDatabase | None = None) -> Iterator["Session"]:
    """Check a study, lock its folder, open both databases and reconcile them.

    Args:
        spec: What to train.
        workers: Processes for its trials.
        database: Optuna's database, if the command has opened it already.

    Yields:
        The open study.

    Raises:
        InputError: If the study cannot start; nothing has been written then.
        LightningHpoError: If a database, MLflow or the disk fails in the meantime.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if database is None:
        try:
            database = StudyDatabase(spec.settings.storage_url, spec.settings.storage_wait)
        except InputError as error:
            raise InputError([*spec.settings.problems(), *error.problems]) from error
    spec, space, pruner = check_settings(spec, database)
    with lock_study(spec.settings.folder) as used_before, exit_with_one_line_error(workers):
        attributes = check_start(spec, space, database, workers, used_before=used_before)
        tracker = Tracker(str(spec.settings.tracking_uri))
        experiment = tracker.experiment(spec.experiment)  # first: no study is created while MLflow is away
        first = space.first_points(spec.warm_start.points if spec.warm_start else ())
        study = database.create(spec.settings, build_sampler(spec.sampler, spec.settings.seed, first), pruner)
        update_attributes(study, attributes)
        session = Session(spec, space, study, tracker, experiment, workers)
        for line in Reconciliation(study, tracker, alive=False, open_only=True).run():
            session.say(line)
        session.count_trials()
        yield session


@contextmanager
def exit_with_one_line_error(workers: Workers) -> Iterator[None]:
    """On a database, MLflow or disk error: kill the running trials and raise a one-line error."""
    try:
        yield
    except (*AWAY, sqlite3.Error, StorageInternalError, StorageAwayError) as error:
        workers.kill()
        for key in workers.running:
            workers.release(key)
        workers.reap()
        if isinstance(error, LightningHpoError):
            raise
        cause: BaseException = error
        while isinstance(cause, StorageInternalError) and cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next(iter(masked(str(getattr(cause, "orig", None) or cause)).splitlines()), "")
        raise LightningHpoError(
            f"{type(cause).__name__}: {reason}; the running trials were killed, and the same command resumes them"
        ) from error


class Session:
    """An open study and its progress in this command.

    Args:
        spec: Specification of the study.
        space: Its search space.
        study: Optuna's side.
        tracker: MLflow's side.
        experiment: Id of the study's experiment in MLflow.
        workers: Processes for its trials.

    Attributes:
        run_tags: Tags of every run that this command starts.
        stopping: Whether and why the study stops.
        outboxes: Entries of the trials for MLflow.
        eta: Estimates the time that is left.
        done: Number of trials that count towards --study.n_trials.
        best: Best value of a complete trial, if there is one.
        console: Where lines and bars are shown.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: SearchSpace,
        study: optuna.Study,
        tracker: Tracker,
        experiment: str,
        workers: Workers,
    ) -> None:
        self.spec, self.study, self.tracker = spec, study, tracker
        self.experiment, self.workers = experiment, workers
        self._space = space
        self._objective = spec.settings.objective
        self.console = Console(stderr=True, highlight=False)
        self.run_tags = environment_tags()
        self.stopping = Stopping(workers, spec.settings.timeout, self.say)
        self.outboxes = Outboxes(study, tracker)
        self.eta = TimeEstimator(spec.settings.n_trials, workers.count, None if spec.endless else spec.epochs)
        self.best: float | None = None
        self.done = 0
        self._failures: list[str] = []
        self._exhausted = bool(study.user_attrs.get(StudyKey.EXHAUSTED))
        self._servers: dict[int, TrialServer] = {}

    def count_trials(self) -> None:
        """Count the trials that earlier commands have finished."""
        counted = self.study.get_trials(deepcopy=False, states=self.spec.counted)
        self.done = len(counted)
        for trial in counted:
            self.eta.add(*_measured(trial))
        self.best = next((trial.value for trial in ranked(self.study)), None)

    def say(self, line: str) -> None:
        """Show a line, above the bars where there are some."""
        self.console.print(line, markup=False, soft_wrap=True)

    @property
    def complete(self) -> bool:
        """Whether the study has all its trials, or its sampler has nothing left to sample."""
        return self._exhausted or self.done >= self.spec.settings.n_trials

    @property
    def wants_more_trials(self) -> bool:
        """Whether to start another trial."""
        stopped = self.stopping.requested or self._exhausted or self._failed_too_often
        return not stopped and self.done + len(self.workers.running) < self.spec.settings.n_trials

    @property
    def _failed_too_often(self) -> bool:
        return len(self._failures) >= self.spec.settings.max_failures

    def sample(self, trial: optuna.Trial) -> Sample:
        """Return the sampled values of a trial, and its config."""
        if self.spec.sample is not None:
            return self.spec.sample(trial)
        values = self._space.suggest(trial)
        # The precision instead of `auto`: the config must give the same model on a device that would choose another.
        # The trial's process validates all values when it parses the config.
        precision = self.study.user_attrs[StudyKey.PRECISION]
        config = with_flags(self.spec.config, {"trainer.precision": precision, **values})
        revision = self.study.user_attrs.get(StudyKey.ENCODER_REVISIONS, {}).get(flags(config).get(NAME))
        return Sample(values, with_flags(config, {REVISION: revision}) if revision else config)

    def server(self, trial: optuna.Trial) -> TrialServer:
        """Return the server that answers the requests of a running trial."""
        if trial.number not in self._servers:
            self._servers[trial.number] = TrialServer(self.study, trial, self.is_best)
        return self._servers[trial.number]

    def is_best(self, value: float) -> bool:
        """Return whether a value is better than that of every complete trial."""
        return self.best is None or self._objective.is_better(value, self.best)

    def seconds_to_wait(self) -> float | None:
        """Return the seconds to wait for messages; None for no limit."""
        tick = _TICK_S if self.outboxes.unsent else None
        left = self.stopping.seconds_left()
        return min((limit for limit in (tick, left) if limit is not None), default=None)

    def count(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Count a trial whose process has ended, and release what only that process needed."""
        self._servers.pop(trial.number, None)
        self.outboxes.release(trial)
        self.outboxes.flush()
        if state in self.spec.counted:
            self.done += 1
            self.eta.add(*_measured(stored_trial(self.study, trial)))
        if state == TrialState.COMPLETE and outcome.value is not None and self.is_best(outcome.value):
            self.best = outcome.value
        if state == TrialState.FAIL:
            self._failures.append(outcome.reason)
        elif state.is_finished():
            self._failures.clear()
        if getattr(self.study.sampler, "exhausted", False) and not self._exhausted:
            self._exhausted = True
            self.study.set_user_attr(StudyKey.EXHAUSTED, True)
            self.say("the sampler has sampled the whole search space")

    def send_all(self) -> bool:
        """Send what MLflow has not accepted, and show a line if it still does not. Return whether it has everything."""
        if not self.outboxes.flush(now=True):
            self.say(
                f"MLflow does not respond and has not received all entries of {self.outboxes.unsent} trials; run the "
                "same command again to send the rest and to register the best model"
            )
        return not self.outboxes.unsent

    def finish(self) -> int:
        """Show the result and return the exit code: 0, or 128 and the number of the signal that stopped the study.

        Raises:
            LightningHpoError: If too many trials in a row have failed, or the disk cannot be written.
        """
        folder = self.spec.settings.folder
        if self.spec.search_space:  # the best trial of a refit would be its luckiest seed
            self.say(result_line(self.study))
        if self._failed_too_often:
            raise LightningHpoError(
                f"{len(self._failures)} trials in a row have failed, the last with: {self._failures[-1]}; "
                f"see {folder}/trial_*/log.txt; --study.max_failures allows more"
            )
        if self.stopping.problem:
            raise LightningHpoError(
                f"{folder}: {self.stopping.problem}; the running trials are paused; free some space and run the same "
                "command to resume"
            )
        if self.stopping.requested:
            why = "the time limit has passed" if self.stopping.over_time else "stopped"
            self.say(f"{why}: run the same command to resume")
        return 128 + self.stopping.signal if self.stopping.signal else 0


def _measured(trial: FrozenTrial) -> tuple[float, int]:
    """Return seconds and validated epochs of a trial; an imported trial has only its start and its end."""
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return trial.user_attrs.get(TrialKey.RUNTIME, seconds), len(trial.intermediate_values)
