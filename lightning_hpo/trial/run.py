"""One trial, in a process of its own: resolved config, Trainer.fit, ending."""

import errno
import logging
import math
import os
import socket
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics
from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint
from lightning_hpo.callbacks.progress_report import ProgressReport
from lightning_hpo.callbacks.pruning import PruningCallback
from lightning_hpo.callbacks.random_state import RandomState
from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint, find_checkpoint, is_out_of_memory
from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from lightning_hpo.config.agent_cli import AgentCLI, read_yaml
from lightning_hpo.exceptions import LightningHpoError, NotFiniteError
from lightning_hpo.hardware.memory import gpu_use
from lightning_hpo.study.recorder import WORKER, Outcome, OutcomeKind, keep_outcome
from lightning_hpo.study_folder import CONFIG
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import AWAY, Tracker
from lightning_hpo.trial.remote_trial import RemoteTrial

__all__ = ["TrialTask", "device_name", "run_trial"]

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class TrialTask:
    """What a trial's process is told.

    Args:
        tracking_uri: MLflow's database or server.
        run_id: MLflow's run of the trial; None if MLflow has not answered yet.
        folder: Folder of the trial, with its `config.yaml`; a checkpoint in it is gone on from.
        monitor: The metric that is optimized.
        mode: "max" or "min".
        threads: CPU threads for torch.
        checkpoint_s: Seconds after which the trial writes down its state within an epoch.
        asked: When the trial was asked for, in seconds since 1970.
    """

    tracking_uri: str
    run_id: str | None
    folder: Path
    monitor: str
    mode: str
    threads: int
    checkpoint_s: float
    asked: float


def run_trial(task: TrialTask, pipe: Connection) -> None:
    """Train the trial; send how far it is, a line on its checkpoint if need be, and its `Outcome`; ask what is next.

    Args:
        task: What to train.
        pipe: To the study's process and back; see `RemoteTrial` for what is asked.
    """
    stop = StopRequest()
    stop.listen()
    started = time.monotonic()
    torch.set_num_threads(task.threads)
    try:
        outcome = _train(task, pipe, stop, started)
    except Exception as error:  # noqa: BLE001 - whatever a model raises is how this trial ended
        outcome = _outcome_of(error, time.monotonic() - started)
    keep_outcome(task.folder, outcome)
    pipe.send(outcome)


def _train(task: TrialTask, pipe: Connection, stop: StopRequest, started: float) -> Outcome:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    line = RemoteTrial(pipe)
    tracker = Tracker(task.tracking_uri)
    outbox = Outbox(task.folder, tracker, task.run_id, on_write=line.written)
    best = MLflowModelCheckpoint(
        task.folder,
        task.monitor,
        task.mode,
        tracking_uri=tracker.uri,
        run_id=task.run_id,
        wanted=lambda value: task.run_id is not None and line.leads(value),
    )
    callbacks: list[Callback] = [
        RandomState(),
        stop,
        MLflowMetrics(outbox, task.monitor, task.asked),
        ProgressReport(pipe, task.monitor),
        PruningCallback(line, task.monitor),
        best,
        # After the best one, so that the state of that one in here is this epoch's.
        ResumeCheckpoint(task.folder, stop, task.checkpoint_s),
    ]
    config = read_yaml((task.folder / CONFIG).read_text(encoding="utf-8"))  # jsonargparse checks that of a file twice
    cli = AgentCLI(config, trainer_kwargs=_trainer_kwargs(task.folder, callbacks))
    where = _where(cli.trainer)
    line.set_user_attr(WORKER, {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), **where})
    outbox.write("set_status", status="RUNNING", tags=where)
    stop.check()
    checkpoint, remark = find_checkpoint(task.folder)
    if remark:
        pipe.send(remark)
    if checkpoint is not None and outbox.run_id is not None:
        _forget_models(tracker, outbox.run_id)
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except optuna.TrialPruned:
        return Outcome(OutcomeKind.PRUNED, epoch=cli.trainer.current_epoch, runtime_s=time.monotonic() - started)
    use = gpu_use(cli.trainer.strategy.root_device)
    if use is not None:
        pipe.send(use)
    return _complete(best, task.monitor, time.monotonic() - started)


def _forget_models(tracker: Tracker, run_id: str) -> None:
    """Delete what an earlier attempt has logged: it died before anyone heard of its model."""
    try:
        tracker.delete_models_of(run_id)
    except AWAY as error:
        print(f"MLflow does not answer ({type(error).__name__}); a model of an earlier attempt may stay behind")


def _trainer_kwargs(folder: Path, callbacks: list[Callback]) -> dict[str, object]:
    return {
        "callbacks": callbacks,
        "logger": False,
        "default_root_dir": str(folder),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


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
    )


def _outcome_of(error: Exception, seconds: float) -> Outcome:
    if isinstance(error, StopRequestedError | SIGTERMException):
        return Outcome(OutcomeKind.INTERRUPTED, reason="interrupted", runtime_s=seconds)
    if isinstance(error, BrokenPipeError):  # nobody hears what the trial has to tell
        return Outcome(OutcomeKind.DIED, reason="the study's process died", runtime_s=seconds)
    unwritable = _unwritable(error)
    if unwritable is not None:
        reason = f"cannot write: {os.strerror(unwritable)}"
        return Outcome(OutcomeKind.INTERRUPTED, reason=reason, runtime_s=seconds, stops_study=True)
    if is_out_of_memory(error):
        return Outcome(OutcomeKind.OUT_OF_MEMORY, reason="out of memory", runtime_s=seconds)
    known = isinstance(error, LightningHpoError)
    return Outcome(
        OutcomeKind.FAILED,
        reason=str(error).splitlines()[0] if known else type(error).__name__,
        # The frames, not the message: a library's message could quote what it was given.
        traceback="".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + "\n",
        runtime_s=seconds,
    )


def _unwritable(error: BaseException | None) -> int | None:
    """The error's number if a full or read-only disk is behind it; torch raises an error of its own over it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def device_name(trainer: object) -> str:
    """The device's name, such as "cpu" or that of a graphics gpu."""
    device = trainer.strategy.root_device  # type: ignore[attr-defined]
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def _where(trainer: object) -> dict[str, str]:
    tags = {"device": device_name(trainer)}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # the gpu that this process was given
    if visible and trainer.strategy.root_device.type == "cuda":  # type: ignore[attr-defined]
        tags["device_index"] = visible
    return tags
