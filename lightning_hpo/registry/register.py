"""The winner of a study: registered, proven in a fresh process, and only then given the alias `production`."""

import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
import torch
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState
from torch import nn
from yaml import YAMLError

from lightning_hpo.config.agent_cli import AgentCLI, read_yaml
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.hardware.bf16 import quicken_attention
from lightning_hpo.serving.checksums import DIGEST, first_changed_file
from lightning_hpo.study.recorder import run_id_of
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import BEST, CONFIG
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["ALIAS", "register"]

ALIAS = "production"
_COLLAPSED = "its trial has collapsed, so it gives every pair the same answer"
_TOLERANCE = 1e-4
_TOLERANCE_16_BIT = 5e-3


@dataclass(frozen=True)
class _Claim:
    """What a version is said to be: the files that were logged, with the score of a trial on its data."""

    uri: str
    tracking_uri: str
    sealed: str
    trial_folder: Path
    monitor: str
    value: float
    data_fingerprint: str | None


@dataclass(frozen=True)
class _Proof:
    value: float = 0.0
    reference: float = 0.0
    problem: str = ""


def register(
    study: optuna.Study, tracker: Tracker, workers: Workers, *, number: int | None = None, promote: bool | None = None
) -> str:
    """Register a trial's model, and let the alias `production` point to it if that is an improvement.

    The alias moves only after a fresh process has loaded the version and got the score of its trial again.

    Args:
        study: The study.
        tracker: MLflow's side of it.
        workers: Gives the fresh process.
        number: Of the trial; None is the best one.
        promote: False leaves the alias alone; True moves it even where another study's model cannot be compared or
            is better, or this one has collapsed; None moves it to something better on the same data. What has
            collapsed takes nobody's place then, and is told where there was none.

    Returns:
        A line that says what was done.

    Raises:
        InputError: If there is no complete trial of that number.
        LightningHpoError: If there is no model to register, or it does not give its trial's score again.
    """
    best = _chosen(study, number)
    name = f"{study.user_attrs['agent']}-best-model"
    version = _known_version(tracker, name, study, best)
    if version is None:
        uri = best.user_attrs.get("mlflow_model_uri")
        if uri is None or not tracker.has_model(uri):
            uri = _logged_now(study, best, tracker, workers)
        version = _version(tracker, name, uri, study, best)
    _prove(study, best, tracker, workers, version)
    obstacle = _obstacle(tracker, study, best, version) if promote is None else ""
    said = f"registered {name} version {version.version}, proven"
    if promote is False or obstacle:
        return f"{said}; {ALIAS} stays where it is" + (obstacle and f": {obstacle}")
    _promote(tracker, version)
    return f"{said}, {ALIAS}: models:/{name}@{ALIAS}" + (f"; {_COLLAPSED}" if best.user_attrs.get("collapsed") else "")


def _chosen(study: optuna.Study, number: int | None) -> optuna.trial.FrozenTrial:
    # The storage is asked for the one trial: all of them would be read for longer the more there are.
    try:
        best = study.best_trial
        wanted = best if number is None else _numbered(study, number)
    except ValueError as error:
        raise LightningHpoError(
            f"{study.study_name}: no trial is complete, so there is no model to register"
        ) from error
    if wanted is None or wanted.state != TrialState.COMPLETE:
        raise InputError(
            f"--trial: {study.study_name} has no complete trial {number}; `lightning-hpo status --study "
            f"{study.study_name}` shows its trials"
        )
    return wanted


def _numbered(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial | None:
    try:
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    except KeyError:
        return None
    return study._storage.get_trial(trial_id)


def _logged_now(study: optuna.Study, best: optuna.trial.FrozenTrial, tracker: Tracker, workers: Workers) -> str:
    """Log the model of a trial that could not log it: MLflow was away, or another trial was better then."""
    folder, run_id = _folder(study, best), run_id_of(study, best)
    problem = best.user_attrs.get("ended_by") or "it has no weights any more; the best --study.keep trials keep theirs"
    if run_id is not None and (folder / BEST).exists():
        answer = workers.call(_log_from_checkpoint, folder, run_id, tracker.uri, log=folder / "proof.log")
        if isinstance(answer, str) and answer.startswith("models:/"):
            return answer
        problem = answer.reason if isinstance(answer, ProcessExit) else answer
    raise LightningHpoError(f"{study.study_name}: trial {best.number} cannot be registered: {problem}")


def _log_from_checkpoint(folder: Path, run_id: str, tracking_uri: str, pipe: Connection) -> None:
    from lightning_hpo.serving.flavor import log_model  # as the checkpoint callback does: only this process pays for it

    kwargs = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "enable_checkpointing": False}
    try:
        cli = AgentCLI(["--config", str(folder / CONFIG)], trainer_kwargs=kwargs)
        cli.model.load_state_dict(torch.load(folder / BEST, map_location="cpu", weights_only=True)["state_dict"])
        cli.datamodule.prepare_data()
        cli.datamodule.setup("validate")
        cli.model.trainer = cli.trainer  # whose precision goes with the model
        pipe.send(log_model(cli.model, cli.datamodule, run_id=run_id, tracking_uri=tracking_uri))
    except LightningHpoError as error:
        pipe.send(str(error).splitlines()[0])


def _folder(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> Path:
    return Path(study.user_attrs["outdir"]) / f"trial_{trial.number}"


def _known_version(
    tracker: Tracker, name: str, study: optuna.Study, best: optuna.trial.FrozenTrial
) -> ModelVersion | None:
    found = tracker.client.search_model_versions(f"name = '{name}' AND run_id = '{run_id_of(study, best)}'")
    return found[0] if found else None


def _version(
    tracker: Tracker, name: str, uri: str, study: optuna.Study, best: optuna.trial.FrozenTrial
) -> ModelVersion:
    client = tracker.client
    run_id = run_id_of(study, best)
    model = client.get_logged_model(uri.removeprefix("models:/"))
    tags = {
        "optuna_trial": str(best.number),
        "value": repr(best.value),
        "study": study.study_name,
        "monitor": study.user_attrs["monitor"],
        "data_fingerprint": str(study.user_attrs["data_fingerprint"]),
        DIGEST: str(model.tags.get(DIGEST)),
    }
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its place: MLflow would look a models:/ URI up in the process's own store.
    return client.create_model_version(name, model.artifact_location, run_id, tags, model_id=model.model_id)


def _prove(
    study: optuna.Study,
    best: optuna.trial.FrozenTrial,
    tracker: Tracker,
    workers: Workers,
    version: ModelVersion,
) -> None:
    claim = _Claim(
        uri=f"models:/{version.name}/{version.version}",
        tracking_uri=tracker.uri,
        sealed=version.tags.get(DIGEST, ""),
        trial_folder=_folder(study, best),
        monitor=study.user_attrs["monitor"],
        value=float(best.value or 0.0),
        data_fingerprint=study.user_attrs["data_fingerprint"],
    )
    proof = workers.call(_check, claim, log=claim.trial_folder / "proof.log")
    if isinstance(proof, ProcessExit):
        proof = _Proof(problem=f"the process that loaded it was {proof.reason}")
    difference = abs(proof.value - proof.reference)
    if not proof.problem and not difference <= _tolerance(claim.trial_folder):
        proof = _Proof(problem=f"it scores {proof.value:.6f}, and its trial {proof.reference:.6f}")
    if proof.problem:
        raise LightningHpoError(
            f"{claim.uri} is registered but not proven, so {ALIAS} stays where it is: {proof.problem}"
        )


def _tolerance(trial_folder: Path) -> float:
    """How far the score may be from that of a trial, which may have had fewer bits, or rounded them elsewhere."""
    precision = _precision(trial_folder)
    # `auto` may have been bf16, on another machine than this one, too.
    return _TOLERANCE_16_BIT if "16" in precision or precision == "auto" else _TOLERANCE


def _precision(trial_folder: Path) -> str:
    config = read_yaml((trial_folder / CONFIG).read_text(encoding="utf-8"))
    return str(config["trainer"].get("precision"))


def _check(claim: _Claim, pipe: Connection) -> None:
    try:
        pipe.send(_checked(claim))
    except (LightningHpoError, MlflowException, OSError, RuntimeError, ValueError, KeyError, YAMLError) as error:
        pipe.send(_Proof(problem=f"it cannot be loaded and run: {type(error).__name__}"))


def _checked(claim: _Claim) -> _Proof:
    import mlflow
    from mlflow.models import Model

    mlflow.set_tracking_uri(claim.tracking_uri)
    folder = Path(mlflow.artifacts.download_artifacts(claim.uri))
    # A bit of a weight that has flipped need not show in the score.
    changed = first_changed_file(folder, (Model.load(folder).metadata or {}).get(DIGEST, {}), claim.sealed)
    if changed is not None:
        return _Proof(problem=f"its file {changed} is not the one that was logged, by its {DIGEST}")
    return _scored(claim, folder)


def _scored(claim: _Claim, folder: Path) -> _Proof:
    import mlflow.pytorch

    from lightning_hpo.serving.flavor import saved_decoding

    loaded = mlflow.pytorch.load_model(str(folder))
    kwargs = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    # As the trial, where a CPU can: an answer at the edge is another one with more bits.
    narrow = "bf16" in _precision(claim.trial_folder)
    kwargs |= {"precision": "bf16-mixed" if narrow else "32-true", "enable_checkpointing": False}
    cli = AgentCLI(["--config", str(claim.trial_folder / CONFIG)], trainer_kwargs=kwargs)
    if not hasattr(cli.model, "network"):
        return _compared(cli.model, loaded, claim.trial_folder)
    quicken_attention(loaded)  # as in the trial
    cli.model.network = _Loaded(loaded)
    if hasattr(cli.model, "decoding"):
        # The model's own, and not the config's: a threshold that was calibrated is in no config.
        cli.model.decoding = saved_decoding(folder)
    cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    has = getattr(cli.datamodule, "fingerprint", None)
    if has != claim.data_fingerprint:
        return _Proof(
            problem=f"the data that its config names have the fingerprint {has} now, and had {claim.data_fingerprint} "
            "when it was trained"
        )
    return _Proof(float(cli.trainer.callback_metrics[claim.monitor]), claim.value)


def _compared(model: Any, loaded: nn.Module, trial_folder: Path) -> _Proof:
    """For a foreign module: the loaded one must give what the trial's best weights give, on the module's example."""
    weights = torch.load(trial_folder / BEST, map_location="cpu", weights_only=True)
    model.load_state_dict(weights["state_dict"])
    model.eval()
    with torch.no_grad():
        difference = (model(model.example_input_array) - loaded(model.example_input_array)).abs().max()
    return _Proof(float(difference), 0.0)


class _Loaded(nn.Module):
    """Holds an exported program's module, which refuses `train()` and `eval()`, out of Lightning's sight."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (module,)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the held module gives."""
        result: torch.Tensor = self._held[0](*inputs)
        return result


def _obstacle(tracker: Tracker, study: optuna.Study, trial: optuna.trial.FrozenTrial, version: ModelVersion) -> str:
    again = (
        f"`lightning-hpo register --study {study.study_name} --trial {trial.number} --promote` moves it all the same"
    )
    try:
        current = tracker.client.get_model_version_by_alias(version.name, ALIAS)
    except MlflowException:
        return ""
    if current.version == version.version:
        return ""
    if trial.user_attrs.get("collapsed"):
        return f"{_COLLAPSED}; {again}"
    had, has = current.tags, version.tags
    if any(had.get(key) != has.get(key) for key in ("data_fingerprint", "monitor")):
        return f"version {current.version} was scored on other data, so the two cannot be compared; {again}"
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    if sign * float(has["value"]) <= sign * float(had["value"]):
        scores = f"{float(had['value']):.4f} against {float(has['value']):.4f}"
        return f"version {current.version} is no worse ({scores}); {again}"
    return ""


def _promote(tracker: Tracker, version: ModelVersion) -> None:
    tracker.client.set_registered_model_alias(version.name, ALIAS, version.version)
    with warnings.catch_warnings():
        # Stages are on their way out of MLflow; as long as it has them, models:/NAME/production loads, too.
        warnings.simplefilter("ignore", FutureWarning)
        tracker.client.transition_model_version_stage(
            version.name, version.version, "Production", archive_existing_versions=True
        )
