"""Registration of a trial's model: log it if necessary, create a version, verify it, and move the alias."""

import shlex
from dataclasses import replace
from multiprocessing.connection import Connection

import optuna
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.callbacks.checkpoint_files import load_weights
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.registry.promote import update_alias
from lightning_hpo.registry.scored_model import ScoredModel
from lightning_hpo.registry.verify import verify
from lightning_hpo.serving.checksums import DIGEST
from lightning_hpo.storage.attributes import TrialKey, folder_of, run_id_of, set_model_seal
from lightning_hpo.storage.optuna_private import trial_by_number
from lightning_hpo.storage.studies import require_tuned
from lightning_hpo.study.lock import lock_models
from lightning_hpo.study.ownership import owns_run
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.logged_models import find_model
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.config import restore_config
from lightning_hpo.trial.trainer import rebuild_trial

__all__ = ["register", "register_verified"]


def register(
    study: optuna.Study, tracker: Tracker, workers: Workers, *, number: int | None = None, promote: bool | None = None
) -> str:
    """Register a trial's model, verify it in a fresh process, and move the alias `production` if it is an improvement.

    Without a number, the best trial is registered. `update_alias` explains `promote`. Return one line that states what
    was done.

    Raises:
        InputError: If `tune` did not create the study, or the study has no complete trial with this number.
        LightningHpoError: If there is no model to register, or verification fails.
    """
    require_tuned(study, "models")
    trial = _complete_trial(study, number)
    restore_config(study, trial, tracker)
    with lock_models(folder_of(study), wait=True):  # `tune` deletes no model of which there is a version
        version = _find_version(tracker, study, trial) or _make_version(tracker, study, trial, workers)
    model = ScoredModel.of_trial(study, trial)
    if model.seal is None:  # version 0.1.0 has stored it in MLflow only
        model = replace(model, seal=version.tags.get(DIGEST))
    uri = f"models:/{version.name}/{version.version}"
    if problem := verify(model, uri, tracker, workers):
        raise LightningHpoError(f"{uri} is registered, but verification failed, so no alias is moved: {problem}")
    return _registered(model, tracker, version, promote=promote)


def register_verified(model: ScoredModel, uri: str, tracker: Tracker, *, promote: bool | None = None) -> str:
    """Register a logged model that `verify` has verified, and move the alias if it is an improvement.

    A version that an earlier call has created is found again. Return one line that states what was done.
    """
    logged = tracker.client.get_logged_model(uri.removeprefix("models:/"))
    versions = tracker.client.search_model_versions(f"name = '{model.name}' AND run_id = '{model.run_id}'")
    # Others can add versions of other files with this run.
    own = [version for version in versions if version.source == logged.artifact_location]
    version = own[0] if own else _create_version(tracker, uri, model)
    return _registered(model, tracker, version, promote=promote)


def _registered(model: ScoredModel, tracker: Tracker, version: ModelVersion, *, promote: bool | None) -> str:
    alias = update_alias(model, tracker, version, promote=promote)
    return f"registered {version.name} version {version.version}, verified; {alias}"


def _complete_trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    try:
        trial = study.best_trial if number is None else trial_by_number(study, number)
    except ValueError as error:
        raise LightningHpoError(
            f"{study.study_name}: no trial is complete, so there is no model to register"
        ) from error
    if trial is None or trial.state != TrialState.COMPLETE:
        raise InputError(
            f"--trial: got {number}, which is not a complete trial of {study.study_name}; "
            f"`lightning-hpo status --study {shlex.quote(study.study_name)}` lists the trials"
        )
    return trial


def _find_version(tracker: Tracker, study: optuna.Study, trial: FrozenTrial) -> ModelVersion | None:
    model = ScoredModel.of_trial(study, trial)
    # A version of a trial whose model Optuna does not know may be from anybody who can write to the registry.
    if model.seal is None and trial.user_attrs.get(TrialKey.MODEL_URI) is None:
        return None
    versions = tracker.client.search_model_versions(f"name = '{model.name}' AND run_id = '{model.run_id}'")
    return versions[0] if versions else None


def _make_version(tracker: Tracker, study: optuna.Study, trial: FrozenTrial, workers: Workers) -> ModelVersion:
    """Create a version of the trial's model, and log the model before if necessary."""
    run_id = _own_run(study, trial, tracker)
    uri = trial.user_attrs.get(TrialKey.MODEL_URI)
    if uri is None or find_model(tracker, uri) is None:
        folder = folder_of(study).trial(trial.number)
        uri, seal = _log_now(study, trial, folder, tracker.uri, run_id, workers)
        set_model_seal(study, trial, seal)
    return _create_version(tracker, uri, ScoredModel.of_trial(study, trial))


def _own_run(study: optuna.Study, trial: FrozenTrial, tracker: Tracker) -> str:
    """Return the id of a trial's run, which is to have a model of this study."""
    run_id = run_id_of(study, trial)
    run = None if run_id is None else tracker.run(run_id)
    if run is None:
        raise _cannot_register(study, trial, "its run is not in MLflow")
    if not owns_run(study, run):
        why = "its run belongs to the study that it was imported from; register it there"
        raise _cannot_register(study, trial, why)
    return run.run_id


def _log_now(
    study: optuna.Study, trial: FrozenTrial, folder: TrialFolder, tracking_uri: str, run_id: str, workers: Workers
) -> tuple[str, str]:
    """Log a model that was not logged in training: MLflow did not answer, or another trial was better.

    Returns:
        Its URI and its seal.
    """
    problem = trial.user_attrs.get(TrialKey.REASON) or "its checkpoint was deleted; --study.keep sets how many are kept"
    if folder.best.exists():
        result = workers.call(_log_from_checkpoint, folder, run_id, tracking_uri, log=folder.path / "proof.log")
        if isinstance(result, tuple):
            return result
        problem = result.reason if isinstance(result, ProcessExit) else result
    raise _cannot_register(study, trial, problem)


def _cannot_register(study: optuna.Study, trial: FrozenTrial, problem: str) -> LightningHpoError:
    return LightningHpoError(f"{study.study_name}: trial {trial.number} cannot be registered: {problem}")


def _log_from_checkpoint(folder: TrialFolder, run_id: str, tracking_uri: str, pipe: Connection) -> None:
    """Log the model of a checkpoint, and send its URI and its seal, or the problem."""
    from lightning_hpo.serving.flavor import log_model  # takes seconds, and only this process needs it

    try:
        cli = rebuild_trial(folder, accelerator="cpu")
        cli.model.load_state_dict(load_weights(folder.best))
        cli.datamodule.prepare_data()
        cli.datamodule.setup("validate")
        cli.model.trainer = cli.trainer  # the model is saved with the Trainer's precision
        pipe.send(tuple(log_model(cli.model, cli.datamodule, run_id=run_id, tracking_uri=tracking_uri)))
    except LightningHpoError as error:
        pipe.send(str(error).splitlines()[0])


def _create_version(tracker: Tracker, uri: str, model: ScoredModel) -> ModelVersion:
    client = tracker.client
    logged = client.get_logged_model(uri.removeprefix("models:/"))
    tags = {**model.tags, DIGEST: str(logged.tags.get(DIGEST))}
    try:
        client.create_registered_model(model.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # MLflow resolves models:/ URIs in the process's default store, so the version gets the location of the files.
    return client.create_model_version(
        model.name, logged.artifact_location, model.run_id, tags, model_id=logged.model_id
    )
