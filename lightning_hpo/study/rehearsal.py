"""Rehearsal of a trial: train one batch with its Trainer and callbacks, resume it, and export the model."""

import pickle
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_hpo.agents.network.encoder_checks import check_longest_window
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics
from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint, weights_of
from lightning_hpo.callbacks.resume_checkpoint import find_checkpoint
from lightning_hpo.callbacks.stop_request import StopRequest
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.errors import early_errors
from lightning_hpo.config.flags import with_flags
from lightning_hpo.config.trainer import check_monitors, one_line_errors
from lightning_hpo.exceptions import InputError, LightningHpoError, raise_problems
from lightning_hpo.serving.flavor import save_model
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.limits import Limits
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.messages import WrittenSteps
from lightning_hpo.trial.remote_trial import RemoteTrial
from lightning_hpo.trial.run import TrialTask, trial_callbacks
from lightning_hpo.trial.trainer import build_trial, refused_flags

__all__ = ["Rehearsal", "rehearse"]


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsed trial.

    Args:
        cli: Its module, data module and Trainer.
        export_problem: Why its model cannot be logged; empty if it can.
    """

    cli: AgentCLI
    export_problem: str


class _NoStudy(RemoteTrial):
    """Connection of a trial that belongs to no study: it is never pruned, and nothing is recorded."""

    def __init__(self) -> None:
        """Need no pipe."""

    def send(self, message: object) -> None:
        """Drop a message."""

    def _request(self, request: object) -> Any:
        return set() if isinstance(request, WrittenSteps) else False


def rehearse(config: Mapping[str, Any], settings: StudySettings, folder: TrialFolder) -> Rehearsal:
    """Train and validate one batch as a trial does, resume from its checkpoint, and save its model.

    Args:
        config: The resolved config.
        settings: Settings of the study.
        folder: Folder for the files of the rehearsal. It is deleted at the end.

    Returns:
        The rehearsed trial.

    Raises:
        InputError: One line for each reason why a trial would fail.
    """
    raise_problems(refused_flags(config))
    shutil.rmtree(folder.path, ignore_errors=True)
    try:
        return _rehearsed(config, settings, folder)
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)


def _rehearsed(config: Mapping[str, Any], settings: StudySettings, folder: TrialFolder) -> Rehearsal:
    task = TrialTask(settings, folder, threads=torch.get_num_threads(), asked=time.time())
    remote = _NoStudy()
    best = MLflowModelCheckpoint(folder.path, settings.monitor, settings.objective.mode, wanted=remote.is_best)
    callbacks = trial_callbacks(task, remote, StopRequest(), best)
    # A score such as AUROC may have no value for one batch. The training loss must have one.
    callbacks = [MLflowMetrics(remote, "train_loss") if isinstance(c, MLflowMetrics) else c for c in callbacks]
    if isinstance(
        (config.get("trainer") or {}).get("val_check_interval"), str | dict
    ):  # a time: no batch lasts so long
        config = with_flags(config, {"trainer.val_check_interval": None})
    with early_errors():
        cli = build_trial(config, folder, callbacks)
    limits = Limits.of(cli.trainer)
    limits.shorten(cli.trainer)
    cli.train()
    logged = cli.trainer.callback_metrics
    if settings.monitor not in logged:
        names = ", ".join(sorted(logged)) or "nothing"
        raise InputError(
            f"--study.monitor: {settings.monitor!r} is never logged by {type(cli.model).__name__}; metrics: {names}"
        )
    check_monitors(cli.trainer, cli.trainer_values)
    with one_line_errors(cli.trainer, cli.trainer_values):
        raise_problems(limits.problems(cli.trainer))
    network, length = getattr(cli.model, "network", None), getattr(cli.datamodule, "max_length", None)
    if isinstance(network, TextNetwork) and length is not None:  # the batch need not hold a window of this length
        check_longest_window(network.encoder, length)
    problem = _export_problem(cli, best, folder)
    _resume(cli, folder)
    return Rehearsal(cli, problem)


def _export_problem(cli: AgentCLI, best: MLflowModelCheckpoint, folder: TrialFolder) -> str:
    with weights_of(Path(best.best_model_path), cli.model):
        try:
            save_model(str(folder.path / "model"), module=cli.model, datamodule=cli.datamodule)
        except LightningHpoError as error:
            return str(error).splitlines()[0]
    return ""


def _resume(cli: AgentCLI, folder: TrialFolder) -> None:
    """Resume from the epoch's checkpoint. Training was complete there, so no batch follows."""
    checkpoint, remark = find_checkpoint(folder.path)
    if checkpoint is None:
        raise LightningHpoError(f"the checkpoint of one batch {'is damaged' if remark else 'was not written'}")
    try:
        cli.train(checkpoint)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"a checkpoint of a trial cannot be read without pickle: it holds {found[1] if found else 'an object'}; "
            "save plain values and tensors in `save_hyperparameters`, `state_dict` and `on_save_checkpoint`"
        ) from error
