"""Start of a trial: its run, its config, its process."""

import time

import optuna
from optuna.trial import TrialState

from lightning_hpo.config.flags import flags
from lightning_hpo.hardware.cpus import usable_cpus
from lightning_hpo.storage.attributes import StudyKey, TrialKey, run_tags
from lightning_hpo.study.lines import listed
from lightning_hpo.study.session import Session
from lightning_hpo.study.workers import ProcessExit
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.entries import LogParams, StartRun
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.trial.config import config_digest, halve_batch, has_config, save_config
from lightning_hpo.trial.messages import Notice, Request
from lightning_hpo.trial.outcome import Outcome, OutcomeKind, load_outcome
from lightning_hpo.trial.run import TrialTask, run_trial

__all__ = ["answer_request", "halve_after_out_of_memory", "launch", "outcome_of_exit"]


def launch(session: Session, trial: optuna.Trial) -> None:
    """Start the process of a trial.

    Args:
        session: The study.
        trial: A new trial, or one to resume, which keeps its config and its run.

    Raises:
        InputError: If the sampled values give an invalid config.
    """
    asked = time.time()
    outbox = session.outboxes.of(trial)
    if not outbox.begun:
        _start_run(session, trial, outbox)
    if TrialKey.WORKER not in trial.user_attrs:
        _remove_files(outbox.folder)
    digest = trial.user_attrs.get(TrialKey.CONFIG_DIGEST)
    if not has_config(outbox.folder, digest):
        if has_config(outbox.folder):
            session.say(f"trial {trial.number}: {outbox.folder.config} was changed, and is written again from Optuna")
        sample = session.sample(trial)
        rest = {name: value for name, value in flags(sample.config).items() if value is not None}
        outbox.write(LogParams({**rest, **sample.values}))
        save_config(outbox, sample.config)
    _store_digest(trial, outbox)
    task = TrialTask(
        settings=session.spec.settings,
        folder=outbox.folder,
        threads=max(1, usable_cpus() // session.workers.count),
        asked=asked,
    )
    trial.set_user_attr(TrialKey.WORKER, {"since": asked})  # instead of the process of an earlier attempt
    session.workers.start(trial, run_trial, task, log=outbox.folder.log)
    if session.stopping.requested:  # a signal arrived while the trial was starting
        session.workers.stop()


def _remove_files(folder: TrialFolder) -> None:
    """Remove what the folder of a trial that no process has trained yet has for a trial to start from.

    It is from a study with another database, or somebody else has put it there to be run.
    """
    for path in (folder.config, folder.outcome, folder.best, *folder.resume_files):
        path.unlink(missing_ok=True)


def _store_digest(trial: optuna.Trial, outbox: Outbox) -> None:
    digest = config_digest(outbox.folder.config.read_text(encoding="utf-8"))
    if trial.user_attrs.get(TrialKey.CONFIG_DIGEST) != digest:
        trial.set_user_attr(TrialKey.CONFIG_DIGEST, digest)


def _start_run(session: Session, trial: optuna.Trial, outbox: Outbox) -> None:
    attributes = session.study.user_attrs
    tags = {
        **run_tags(session.study, trial.number, TrialState.RUNNING.name),
        "data_fingerprint": str(attributes[StudyKey.DATA_FINGERPRINT]),
        "data_counts": listed(attributes[StudyKey.DATA_COUNTS]),
        "baselines": listed({name: round(value, 4) for name, value in attributes[StudyKey.BASELINES].items()}),
        **session.run_tags,
    }
    outbox.write(StartRun(session.experiment, outbox.folder.path.name, tags))


def outcome_of_exit(session: Session, trial: optuna.Trial, exited: ProcessExit) -> Outcome:
    """Return the outcome of a trial whose process has exited without sending one."""
    saved = load_outcome(session.outboxes.of(trial).folder)
    if saved is not None:
        return saved
    if session.stopping.requested:  # the process was killed, or stopped before it could handle a signal
        return Outcome(OutcomeKind.INTERRUPTED, reason="interrupted")
    if exited.with_server:
        return Outcome(OutcomeKind.INTERRUPTED, reason=exited.reason)
    return Outcome(OutcomeKind.CRASHED, reason=exited.reason)


def answer_request(session: Session, trial: optuna.Trial, request: Request) -> None:
    """Answer a request of a trial's process."""
    try:
        answer = session.server(trial).answer(request)
    except BaseException:
        session.workers.release(trial)  # without an answer, its process exits
        raise
    session.workers.reply(trial, answer)


def halve_after_out_of_memory(session: Session, trial: optuna.Trial, outcome: Outcome) -> Notice | None:
    """Halve the batch of a trial that is out of memory (see `halve_batch`).

    Returns:
        A notice of the change; None, with nothing changed, if the trial is not restarted.
    """
    if outcome.kind is not OutcomeKind.OUT_OF_MEMORY or session.stopping.requested:
        return None
    if not session.spec.settings.halve_on_oom:
        return None
    outbox = session.outboxes.of(trial)
    if not has_config(outbox.folder, trial.user_attrs.get(TrialKey.CONFIG_DIGEST)):  # changed while the trial ran
        return None
    smaller = halve_batch(outbox, in_validation=outcome.in_validation)
    if smaller is None:
        return None
    _store_digest(trial, outbox)
    trial.set_user_attr(TrialKey.HALVINGS, trial.user_attrs.get(TrialKey.HALVINGS, 0) + 1)
    return Notice(f"is out of memory: restarting with {smaller}")
