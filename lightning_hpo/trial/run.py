"""One trial in its own process: parse the config, fit, send the outcome."""

import contextlib
import errno
import logging
import math
import os
import socket
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

import optuna
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics
from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint
from lightning_hpo.callbacks.post_scores import PostScoresRecord
from lightning_hpo.callbacks.progress_report import ProgressReport
from lightning_hpo.callbacks.pruning import PruningCallback
from lightning_hpo.callbacks.random_state import RandomState
from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint, find_checkpoint, is_out_of_memory
from lightning_hpo.callbacks.sign_of_life import SignOfLife
from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from lightning_hpo.config.errors import early_reason
from lightning_hpo.exceptions import LightningHpoError, NotFiniteError
from lightning_hpo.hardware.memory import gpu_use
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.entries import SetStatus
from lightning_hpo.tracking.errors import cause_of
from lightning_hpo.tracking.logged_models import delete_models_of
from lightning_hpo.tracking.tracker import AWAY, Tracker
from lightning_hpo.trial.messages import Alive, Notice, Progress
from lightning_hpo.trial.outcome import Outcome, OutcomeKind, save_outcome
from lightning_hpo.trial.remote_trial import RemoteTrial, StudyExitedError
from lightning_hpo.trial.trainer import rebuild_trial

__all__ = ["TrialTask", "device_name", "outcome_of_exception", "run_trial", "trial_callbacks", "unwritable"]

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class TrialTask:
    """Task of a trial process.

    Args:
        settings: Settings of the study.
        folder: Folder of the trial, with its `config.yaml`; training resumes from a checkpoint in it.
        threads: CPU threads for torch.
        asked: Unix time at which Optuna was asked for the trial.
    """

    settings: StudySettings
    folder: TrialFolder
    threads: int
    asked: float


def run_trial(task: TrialTask, pipe: Connection) -> None:
    """Train the trial and send its messages (see `trial.messages`) to the study process, the `Outcome` last."""
    stop = StopRequest()
    stop.listen()
    remote, phase = RemoteTrial(pipe), _Phase()
    started = time.monotonic()
    torch.set_num_threads(task.threads)
    try:
        outcome = _train(task, remote, stop, started, phase)
    except Exception as error:  # noqa: BLE001 - any exception of a model is an outcome of its trial
        seconds = time.monotonic() - started
        outcome = outcome_of_exception(
            error, seconds, stopped=stop.requested, posts_read=phase.posts_read, in_validation=phase.validating
        )
    try:
        save_outcome(task.folder, outcome)
    except OSError as error:  # the study process receives it even so, unless it exits at this moment
        print(f"the outcome cannot be saved: {error.strerror}")
    with contextlib.suppress(StudyExitedError):
        remote.send(outcome)


class _Phase(Callback):
    """What a trial is doing.

    Attributes:
        posts_read: Whether posts may have been read, so that the message of an exception may quote one.
        validating: Whether it validates.
    """

    def __init__(self) -> None:
        self.posts_read = self.validating = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Note that a validation starts."""
        self.validating = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Note that it has ended."""
        self.validating = False


def _train(task: TrialTask, remote: RemoteTrial, stop: StopRequest, started: float, phase: _Phase) -> Outcome:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    tracker = Tracker(str(task.settings.tracking_uri))
    checkpoint, remark = find_checkpoint(task.folder.path)
    best = _best_checkpoint(task, tracker, remote, resumed=checkpoint is not None)
    cli = rebuild_trial(task.folder, [*trial_callbacks(task, remote, stop, best), phase])
    device = _device_tags(cli.trainer)
    process = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    remote.set_user_attr(TrialKey.WORKER, {**process, **device})
    remote.write(SetStatus("RUNNING", device))
    stop.check()
    if remark:
        remote.send(Notice(remark))
    phase.posts_read = True
    try:
        cli.train(checkpoint)
    except optuna.TrialPruned:
        if checkpoint is not None:
            _delete_earlier_models(tracker, remote.run_id)
        return Outcome(OutcomeKind.PRUNED, epoch=cli.trainer.current_epoch, runtime_s=time.monotonic() - started)
    use = gpu_use(cli.trainer.strategy.root_device)
    if use is not None:
        remote.send(use)
    return _complete(best, task.settings.monitor, time.monotonic() - started)


def trial_callbacks(
    task: TrialTask, remote: RemoteTrial, stop: StopRequest, best: MLflowModelCheckpoint
) -> list[Callback]:
    """Return the callbacks that every trial has, in their order."""
    monitor = task.settings.monitor
    return [
        RandomState(),
        stop,
        MLflowMetrics(remote, monitor, task.asked),
        SignOfLife(task.folder.sign_of_life, lambda: remote.send(Alive())),
        ProgressReport(lambda *progress: remote.send(Progress(*progress)), monitor),
        PruningCallback(remote, monitor),
        best,
        PostScoresRecord(task.folder.post_scores),
        # After `best`, so that the checkpoint holds this epoch's state of it.
        ResumeCheckpoint(task.folder.path, stop, 60 * task.settings.checkpoint_minutes),
    ]


def _best_checkpoint(task: TrialTask, tracker: Tracker, remote: RemoteTrial, *, resumed: bool) -> MLflowModelCheckpoint:
    def wanted(value: float) -> bool:
        if resumed:
            _delete_earlier_models(tracker, remote.run_id)
        return remote.run_id is not None and remote.is_best(value)

    return MLflowModelCheckpoint(
        task.folder.path,
        task.settings.monitor,
        task.settings.objective.mode,
        tracking_uri=tracker.uri,
        run_id=lambda: remote.run_id,
        wanted=wanted,
    )


def _delete_earlier_models(tracker: Tracker, run_id: str | None) -> None:
    """Delete the models of an earlier attempt, which crashed before it could report one."""
    if run_id is None:
        return
    try:
        delete_models_of(tracker, run_id)
    except AWAY as error:
        print(f"MLflow {cause_of(error)}: a model of an earlier attempt may remain")


def _complete(best: MLflowModelCheckpoint, monitor: str, seconds: float) -> Outcome:
    if best.best_value is None or not math.isfinite(best.best_value):
        raise NotFiniteError(f"{monitor} has never been finite")
    return Outcome(
        OutcomeKind.COMPLETE,
        value=best.best_value,
        epoch=best.best_epoch,
        reason=best.problem,
        runtime_s=seconds,
        collapsed=best.best_metrics.get("val_constant") == 1.0,
        model_uri=best.model_uri,
        model_seal=best.model_seal,
    )


def outcome_of_exception(
    error: Exception,
    seconds: float,
    *,
    stopped: bool = False,
    posts_read: bool = True,
    in_validation: bool = False,
) -> Outcome:
    """Return the outcome of a trial that has raised an exception other than `TrialPruned`.

    Args:
        error: The exception.
        seconds: Seconds of training.
        stopped: Whether a stop was requested. It may reach a process of the data loader first, and that is an error.
        posts_read: Whether posts may have been read. Otherwise the message of the exception belongs to the reason.
        in_validation: Whether it was raised in a validation.
    """
    if isinstance(error, StopRequestedError):
        return Outcome(OutcomeKind.INTERRUPTED, reason="interrupted", runtime_s=seconds)
    if isinstance(error, StudyExitedError):
        return Outcome(OutcomeKind.INTERRUPTED, reason="the study process has exited", runtime_s=seconds)
    number = unwritable(error)
    if number is not None:
        reason = f"cannot write: {os.strerror(number)}"
        return Outcome(OutcomeKind.INTERRUPTED, reason=reason, runtime_s=seconds, stops_study=True)
    if stopped:
        return Outcome(OutcomeKind.INTERRUPTED, reason="interrupted", runtime_s=seconds)
    if is_out_of_memory(error):
        return Outcome(
            OutcomeKind.OUT_OF_MEMORY, reason="out of memory", runtime_s=seconds, in_validation=in_validation
        )
    return Outcome(
        OutcomeKind.FAILED,
        reason=_reason(error, posts_read=posts_read),
        # Only the frames: the message of a library's exception may quote post text.
        traceback="".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + "\n",
        runtime_s=seconds,
    )


def _reason(error: Exception, *, posts_read: bool) -> str:
    if isinstance(error, LightningHpoError):
        return str(error).splitlines()[0]
    return type(error).__name__ if posts_read else early_reason(error)


def unwritable(error: BaseException | None) -> int | None:
    """Return the error number of a full or read-only disk in the chain of causes; torch wraps such an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def device_name(trainer: Trainer) -> str:
    """Return the name of the trainer's device, such as "cpu" or that of a GPU."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def _device_tags(trainer: Trainer) -> dict[str, str]:
    tags = {"device": device_name(trainer)}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # the GPU that this process was given
    if visible and trainer.strategy.root_device.type == "cuda":
        tags["device_index"] = visible
    return tags
