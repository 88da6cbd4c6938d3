"""Soup or ensemble of several seeds, made in a process of its own: scored, fitted, written to a folder, logged."""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_hpo.agents.evaluation import EvaluatedModule
from lightning_hpo.agents.network.ensemble import Ensemble
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.pair_outputs import PairOutputs
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.callbacks.checkpoint_files import load_weights
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import LightningHpoError, NotFiniteError
from lightning_hpo.refit.members import Member
from lightning_hpo.refit.soup import State, Step, greedy_soup, running_statistics
from lightning_hpo.storage.objective import Objective
from lightning_hpo.study_folder import TrialFolder, write_whole
from lightning_hpo.tracking.errors import AWAY, cause_of
from lightning_hpo.trial.run import unwritable
from lightning_hpo.trial.trainer import rebuild_trial

__all__ = ["Combination", "Combined", "Kind", "combine"]

Kind = Literal["soup", "ensemble"]


@dataclass(frozen=True)
class Combination:
    """What is to be combined, and where the result is to be logged.

    Args:
        kind: soup (one network with averaged weights) or ensemble (a network that averages the logits of all).
        members: The seeds, the best first.
        folder: Folder for the result.
        objective: The metric, and whether a higher or a lower value is better.
        data_fingerprint: Fingerprint of the data that the seeds were scored on; None if their data module has none.
        run_id: MLflow's run for the model.
        tracking_uri: MLflow's database or server.
    """

    kind: Kind
    members: Sequence[Member]
    folder: TrialFolder
    objective: Objective
    data_fingerprint: str | None
    run_id: str
    tracking_uri: str


@dataclass(frozen=True)
class Combined:
    """A soup or an ensemble that has been logged.

    Args:
        seeds: Seeds that are part of it.
        steps: Steps of the greedy soup; empty for an ensemble.
        metrics: Metrics of its validation.
        model_uri: MLflow's URI of the model.
        seal: Its seal (see `serving.checksums`).
    """

    seeds: Sequence[int]
    steps: Sequence[Step]
    metrics: Mapping[str, float]
    model_uri: str
    seal: str


class _Evaluation(NamedTuple):
    """Result of a validation, with the weights and the fitted decision."""

    value: float
    metrics: Mapping[str, float]
    state: State
    outputs: PairOutputs | None


def combine(task: Combination, pipe: Connection) -> None:
    """Make and log a soup or an ensemble, and send it as `Combined`, or the problem as a text."""
    from lightning_hpo.serving.flavor import log_model  # takes seconds, and only this process needs it

    try:
        write_whole(task.folder.config, task.members[0].folder.config.read_text(encoding="utf-8"))
        cli = rebuild_trial(task.folder)
        make = _make_soup if task.kind == "soup" else _make_ensemble
        seeds, steps, metrics = make(task, cli)
        cli.model.trainer = cli.trainer  # the model is saved with the Trainer's precision
        logged = log_model(cli.model, cli.datamodule, run_id=task.run_id, tracking_uri=task.tracking_uri)
    except (LightningHpoError, MisconfigurationException) as error:
        pipe.send(str(error).splitlines()[0])
        return
    except AWAY as error:
        number = unwritable(error)
        pipe.send(f"MLflow {cause_of(error)}" if number is None else f"cannot write: {os.strerror(number)}")
        return
    pipe.send(Combined(seeds, steps, metrics, logged.uri, logged.seal))


def _make_soup(task: Combination, cli: AgentCLI) -> tuple[list[int], Sequence[Step], Mapping[str, float]]:
    """Give the module the weights of the greedy soup, and write them to the folder."""
    model: LightningModule = cli.model
    if layer := running_statistics(model):
        raise LightningHpoError(
            f"{type(model).__name__} has no soup: its layer {layer} keeps statistics of its inputs (batch "
            "normalization), which do not fit averaged weights"
        )
    paths = {member.seed: member.folder.best for member in task.members}
    soup = greedy_soup(
        list(paths), lambda seed: load_weights(paths[seed]), partial(_evaluate_weights, task, cli), task.objective
    )
    if not soup.best.state:
        raise NotFiniteError(f"{task.objective.monitor} of seed {soup.seeds[0]} is not finite")
    model.load_state_dict(soup.best.state)
    # As that of a trial, so that `test --ckpt_path` accepts it.
    checkpoint = torch.load(paths[soup.seeds[0]], map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = soup.best.state
    write_whole(task.folder.best, lambda file: torch.save(checkpoint, file))
    _save_outputs(task.folder.outputs, soup.best.outputs)
    return soup.seeds, soup.steps, soup.best.metrics


def _evaluate_weights(task: Combination, cli: AgentCLI, weights: State) -> _Evaluation:
    cli.model.load_state_dict(weights)
    try:
        return _evaluate(task, cli)
    except NotFiniteError:
        return _Evaluation(float("nan"), {}, {}, None)


def _make_ensemble(task: Combination, cli: AgentCLI) -> tuple[list[int], Sequence[Step], Mapping[str, float]]:
    """Give the agent a network that averages the logits of all members."""
    agent = cli.model
    if not isinstance(agent, TextAgent):
        raise LightningHpoError(
            f"{type(agent).__name__} has no ensemble: only agents of this package have logits that can be averaged; "
            "use --soup"
        )
    networks = []
    for member in task.members:
        agent.load_state_dict(load_weights(member.folder.best))
        networks.append(cast(TextNetwork, deepcopy(agent.served_network)))
    agent.network = Ensemble(networks)
    found = _evaluate(task, cli)
    _save_outputs(task.folder.outputs, found.outputs)
    return [member.seed for member in task.members], [], found.metrics


def _evaluate(task: Combination, cli: AgentCLI) -> _Evaluation:
    """Score the module on the validation split; the decision of an agent is fitted as in training."""
    model: LightningModule = cli.model
    if isinstance(model, EvaluatedModule):
        model.fits_outside_training = True
    cli.trainer.validate(model, cli.datamodule, verbose=False)
    fingerprint = getattr(cli.datamodule, "fingerprint", None)
    if fingerprint != task.data_fingerprint:
        raise LightningHpoError(
            f"the data have changed since the seeds were trained: their fingerprint was {task.data_fingerprint}, and "
            f"is now {fingerprint}"
        )
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    monitor = task.objective.monitor
    if monitor not in metrics:
        raise LightningHpoError(f"{type(model).__name__} logs no {monitor} in `trainer.validate`")
    outputs = model.pair_outputs() if isinstance(model, EvaluatedModule) else None
    return _Evaluation(metrics[monitor], metrics, _copied(model.state_dict()), outputs)


def _copied(state: State) -> State:
    return {name: value.cpu().clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def _save_outputs(path: Path, outputs: PairOutputs | None) -> None:
    path.unlink(missing_ok=True)  # of an earlier soup
    if outputs is not None:
        outputs.save(path)
