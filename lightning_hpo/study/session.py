"""An open study: checked, locked, reconciled, with both databases and its workers."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from lightning_hpo.config.flags import flags, with_flags
from lightning_hpo.databases import FilesInUse
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.hardware.gpus import leased_gpus, visible_gpus
from lightning_hpo.search.samplers import NumberSeededSampler, build_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.attributes import StudyKey, TrialKey, folder_of, update_attributes
from lightning_hpo.storage.lease import Lease, held_lease
from lightning_hpo.storage.optuna_private import stored_trial
from lightning_hpo.storage.studies import StudyDatabase, ranked
from lightning_hpo.study.checks import check_settings, check_start
from lightning_hpo.study.encoder_revisions import NAME, REVISION
from lightning_hpo.study.eta import TimeEstimator
from lightning_hpo.study.exhaustion import Exhaustion
from lightning_hpo.study.failure import exit_with_one_line_error, pause_on_error
from lightning_hpo.study.lines import result_line
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.outboxes import Outboxes
from lightning_hpo.study.ownership import claim
from lightning_hpo.study.reconciliation import Reconciliation
from lightning_hpo.study.spec import Sample, StudySpec
from lightning_hpo.study.stopping import Stopping
from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.study.workers import LocalWorkers, Workers
from lightning_hpo.study_folder import StudyFolder
from lightning_hpo.terminal.library_output import write_library_output
from lightning_hpo.terminal.printable import printable
from lightning_hpo.tracking.environment import environment_tags
from lightning_hpo.tracking.locations import relocate
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import Outcome

__all__ = ["Session", "local_workers", "open_session"]

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
    database = database or _database(spec)
    spec, space, pruner = check_settings(spec, database)
    with lock_study(spec.settings.folder) as used_before, exit_with_one_line_error(workers), held_lease() as lease:
        attributes = check_start(spec, space, database, workers, used_before=used_before)
        tracker = Tracker(str(spec.settings.tracking_uri))
        relocate(tracker, spec.experiment)
        experiment = tracker.experiment(spec.experiment)  # first: no study is created while MLflow is away
        first = space.first_points(spec.warm_start.points if spec.warm_start else ())
        sampler = build_sampler(spec.sampler, spec.settings.seed, space, first)
        study = database.create(spec.settings, sampler, pruner)
        lease.take(study)
        study_id = claim(study, StudyFolder(spec.settings.folder), tracker)
        update_attributes(study, {StudyKey.ID: study_id, **attributes})
        session = Session(spec, space, study, sampler, tracker, experiment, workers, lease)
        write_library_output(session.folder.log, with_own_lines=True)
        for line in Reconciliation(study, tracker, alive=False, outboxes=session.outboxes).run():
            session.say(line)
        session.count_trials()
        with pause_on_error(session):
            yield session
        session.outboxes.stop()


def _database(spec: StudySpec) -> StudyDatabase:
    try:
        return StudyDatabase(spec.settings.storage_url, spec.settings.storage_wait)
    except InputError as error:
        raise InputError([*spec.settings.problems(), *error.problems]) from error


class Session:
    """An open study and its progress in this command.

    Args:
        spec: Specification of the study.
        space: Its search space.
        study: Optuna's side.
        sampler: Sampler of the study.
        tracker: MLflow's side.
        experiment: Id of the study's experiment in MLflow.
        workers: Processes for its trials.
        lease: Lease of the study, which this process holds.

    Attributes:
        run_tags: Tags of every run that this command starts.
        stopping: Whether and why the study stops.
        outboxes: Entries of the trials for MLflow.
        eta: Estimates the time that is left.
        done: Number of trials that count towards --study.n_trials.
        best: Best value of a complete trial, if there is one.
        console: Where lines and bars are shown.
        folder: The study's folder.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: SearchSpace,
        study: optuna.Study,
        sampler: NumberSeededSampler,
        tracker: Tracker,
        experiment: str,
        workers: Workers,
        lease: Lease,
    ) -> None:
        self.spec, self.study, self.tracker = spec, study, tracker
        self.experiment, self.workers = experiment, workers
        self._space, self._sampler, self._lease = space, sampler, lease
        self._objective = spec.settings.objective
        self.console = Console(stderr=True, highlight=False)
        self.folder = folder_of(study)
        self.run_tags = environment_tags()
        self.stopping = Stopping(workers, spec.settings.timeout, self.say)
        self.outboxes = Outboxes(study, tracker)
        self.eta = TimeEstimator(spec.settings.n_trials, workers.count, spec.known_reports)
        self.best: float | None = None
        self.done = 0
        self._failures: list[str] = []
        self._end = Exhaustion(study, sampler, self.say, endless=spec.sample is not None)
        self._servers: dict[int, TrialServer] = {}
        self._files = FilesInUse(
            {"--study.storage": spec.settings.storage_url.path, "--study.tracking_uri": tracker.file}
        )

    def count_trials(self) -> None:
        """Count the trials that earlier commands have finished."""
        self._end.reopen()
        counted = self.study.get_trials(deepcopy=False, states=self.spec.counted)
        self.done = len(counted)
        for trial in counted:
            self.eta.add(*_measured(trial))
        self.best = next((trial.value for trial in ranked(self.study)), None)

    def say(self, line: str) -> None:
        """Show a line, above the bars where there are some, and log it."""
        line = printable(line)
        self.log(line)
        # The terminal may have been closed, or a signal may have interrupted the writing of another line.
        with suppress(OSError, RuntimeError, ValueError):
            self.console.print(line, markup=False, soft_wrap=True)

    def log(self, text: str) -> None:
        """Append a line to `study.log`, with its time. A line that cannot be written ends no study."""
        with suppress(OSError), self.folder.log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(' ', 'seconds')} {text}\n")

    @property
    def complete(self) -> bool:
        """Whether the study has all its trials, or its sampler has nothing left to sample."""
        return self._end.reached or self.done >= self.spec.settings.n_trials

    @property
    def wants_more_trials(self) -> bool:
        """Whether to start another trial."""
        stopped = self.stopping.requested or self._end.reached or self._failed_too_often
        wanted = not stopped and self.done + len(self.workers.running) < self.spec.settings.n_trials
        return wanted and not self._end.look(running=bool(self.workers.running))

    @property
    def _failed_too_often(self) -> bool:
        return len(self._failures) >= self.spec.settings.max_failures

    def sample(self, trial: optuna.Trial) -> Sample:
        """Return the sampled values of a trial, and its config."""
        if self.spec.sample is not None:
            return self.spec.sample(trial)
        values = self._space.suggest(trial)
        self._sampler.remember(trial.number, trial.params)
        # The precision instead of `auto`: the config must give the same model on a device that would choose another.
        # The trial's process validates all values when it parses the config.
        precision = self.study.user_attrs[StudyKey.PRECISION]
        config = with_flags(self.spec.config, {"trainer.precision": precision, **values})
        revision = self.study.user_attrs.get(StudyKey.ENCODER_REVISIONS, {}).get(flags(config).get(NAME))
        return Sample(values, with_flags(config, {REVISION: revision}) if revision else config)

    def server(self, trial: optuna.Trial) -> TrialServer:
        """Return the server that answers the requests of a running trial."""
        if trial.number not in self._servers:
            self._servers[trial.number] = TrialServer(self.study, trial, self.is_best, self.outboxes.of(trial))
        return self._servers[trial.number]

    def is_best(self, value: float) -> bool:
        """Return whether a value is better than that of every complete trial."""
        return self.best is None or self._objective.is_better(value, self.best)

    def ask(self) -> optuna.Trial:
        """Return a new trial, or a paused one to resume."""
        self._lease.renew()
        return self.study.ask()

    def wait(self) -> list[tuple[Any, Any]]:
        """Return messages of the trials, or none after a while.

        Raises:
            LeaseLostError: If another machine has taken over the study in the meantime.
        """
        left = self.stopping.seconds_left()
        messages = self.workers.wait(_TICK_S if left is None else min(left, _TICK_S))
        self._lease.renew()
        return messages

    def count(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Count a trial whose process has ended, and release what only that process needed.

        Raises:
            LightningHpoError: If the file of a database is gone.
        """
        self._files.check()
        self._servers.pop(trial.number, None)
        self.outboxes.release(trial)
        if state in self.spec.counted:
            self.done += 1
            self.eta.add(*_measured(stored_trial(self.study, trial)))
        if state == TrialState.COMPLETE and outcome.value is not None and self.is_best(outcome.value):
            self.best = outcome.value
        if state == TrialState.FAIL:
            self._failures.append(outcome.reason)
        elif state.is_finished():
            self._failures.clear()
        self._end.note()

    def send_all(self) -> bool:
        """Send what MLflow has not accepted, and show a line if it still refuses. Return whether it has everything."""
        if not self.outboxes.drain(self._show_unsent):
            self.say(
                f"MLflow has not received all entries of {self.outboxes.unsent} trials: it {self.outboxes.problem}; "
                "run the same command again to send the rest and to register the best model"
            )
        return not self.outboxes.unsent

    def _show_unsent(self, left: int) -> None:
        self._lease.renew()
        self.say(f"sending entries to MLflow: {left} trials are left")

    def finish(self) -> int:
        """Show the result and return the exit code: 0, or 128 and the number of the signal that stopped the study.

        Raises:
            LightningHpoError: If too many trials in a row have failed, or the disk cannot be written.
        """
        folder = self.spec.settings.folder
        if self.spec.search_space:  # the best trial of a refit would be its luckiest seed
            self.say(result_line(self.study))
        if self._failed_too_often or (self._end.reached and self._failures and self.best is None):
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
