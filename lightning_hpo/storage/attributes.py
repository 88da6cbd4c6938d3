"""Names of the attributes that Optuna stores with a study and with its trials."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_hpo.storage.optuna_private import set_trial_user_attr, sqlite_file
from lightning_hpo.study_folder import StudyFolder

__all__ = [
    "StudyKey",
    "TrialKey",
    "experiment_name",
    "folder_of",
    "locate_folder",
    "model_seal_of",
    "run_id_of",
    "run_ids_of",
    "run_tags",
    "set_model_seal",
    "set_run_id",
    "update_attributes",
]


class StudyKey:
    """Names of a study's attributes. The values are on disk in existing databases."""

    AGENT = "agent"
    MONITOR = "monitor"
    MODE = "mode"
    ID = "study_id"
    """Drawn once. The study's folder and its runs carry it, too; names are only labels."""
    OUTDIR = "outdir"
    """Absolute path of the study's folder."""
    FOLDER = "folder"
    """Path of the study's folder relative to that of Optuna's SQLite file, for a study that is moved as a whole."""
    TRACKING_URI = "tracking_uri"
    DATA_FINGERPRINT = "data_fingerprint"
    EVALUATION = "evaluation_flags"
    """Value of each flag that changes what is measured."""
    DATA_COUNTS = "data_counts"
    SPLIT_RULE = "split_rule"
    SPLIT_SIZES = "split_sizes"
    """Posts and positives by criterion, by split."""
    BASELINES = "constant_answers"
    PRECISION = "precision"
    ENCODER_REVISIONS = "encoder_revisions"
    """Commit on the Hugging Face hub by the name of the encoder."""
    N_TRIALS = "n_trials"
    WORKERS = "workers"
    EPOCHS = "epochs"
    COMMAND = "command"
    STARTED_FROM = "started_from"
    EXHAUSTED = "exhausted"
    LEASE = "lease"
    """The process that tunes the study (see `storage.lease`)."""
    REFIT_OF = "refit_of"
    REFIT_OF_ID = "refit_of_id"
    """Id of the refitted study: another study may get its name later."""
    REFIT_CANDIDATES = "refit_candidates"
    REFIT_TESTED = "refit_tested"
    REFIT_MODELS = "refit_models"
    """Soup and ensemble of the winner's seeds that are registered, by these words."""


class TrialKey:
    """Names of a trial's attributes."""

    RUN_ID = "mlflow_run_id"
    CONFIG_DIGEST = "config_sha256"
    """Digest of the trial's config, so that MLflow need not be trusted to have the same one."""
    MODEL_URI = "mlflow_model_uri"
    MODEL_SEAL = "mlflow_model_seal"
    """Digest of the logged model, so that MLflow need not be trusted to name it."""
    RUNTIME = "runtime_s"
    """Seconds of training over all attempts, without those of killed processes."""
    WORKER = "worker"
    """Host, process, device and start of the process that trains a trial, or trained it last."""
    LAST_ATTEMPT = "last_attempt"
    """Start and seconds of the attempt that `runtime_s` counted last, and the seconds before it."""
    CRASHES = "deaths"
    """Crashes of the trial's own process since it last gained an epoch."""
    EPOCHS_AT_CRASH = "epochs_at_crash"
    """Number of validated epochs at the last of these crashes."""
    HALVINGS = "batch_halvings"
    PRUNED_AT_EPOCH = "pruned_at_epoch"
    BEST_EPOCH = "best_epoch"
    COLLAPSED = "collapsed"
    REASON = "ended_by"


def experiment_name(agent: str, study: str) -> str:
    """Return the name of a study's experiment in MLflow."""
    return f"{agent}-{study}"


def folder_of(study: optuna.Study) -> StudyFolder:
    """Return the folder of a study that `tune` has made."""
    return StudyFolder(locate_folder(study.user_attrs, sqlite_file(study)))


def locate_folder(attributes: Mapping[str, Any], database: Path | None) -> Path:
    """Return where the folder of a study is now.

    Args:
        attributes: Attributes of the study.
        database: Optuna's SQLite file, or None for another database.
    """
    stored, relative = Path(attributes[StudyKey.OUTDIR]), attributes.get(StudyKey.FOLDER)
    if relative is None or database is None:
        return stored
    # A study that was moved or copied together with its databases has its folder at the same place next to them.
    moved = Path(os.path.normpath(database.parent / relative))
    return moved if moved.is_dir() or not stored.is_dir() else stored


def run_tags(study: optuna.Study, number: int, state: str) -> dict[str, str]:
    """Return the tags that name the study and the trial of a run.

    Args:
        study: The study.
        number: Number of the trial.
        state: State of the trial in Optuna.
    """
    attributes = study.user_attrs
    return {
        "optuna_trial": str(number),
        "optuna_study": study.study_name,
        "agent": str(attributes[StudyKey.AGENT]),
        "optuna_state": state,
        **({StudyKey.ID: attributes[StudyKey.ID]} if StudyKey.ID in attributes else {}),
    }


def update_attributes(study: optuna.Study, attributes: Mapping[str, Any]) -> None:
    """Store the study attributes that are missing or have changed."""
    stored = study.user_attrs
    for key, value in attributes.items():
        if key not in stored or stored[key] != value:
            study.set_user_attr(key, value)


def run_id_of(study: optuna.Study, trial: FrozenTrial) -> str | None:
    """Return the MLflow run of a trial, or None if it has none yet."""
    return run_ids_of(study, [trial])[trial.number]


def model_seal_of(study: optuna.Study, trial: FrozenTrial) -> str | None:
    """Return the seal of a trial's model, or None if version 0.1.0 has logged it."""
    late = study.user_attrs.get(_late(TrialKey.MODEL_SEAL, trial.number))
    return late or trial.user_attrs.get(TrialKey.MODEL_SEAL)


def set_model_seal(study: optuna.Study, trial: FrozenTrial, seal: str) -> None:
    """Store the seal of a model that was logged after its trial had ended."""
    study.set_user_attr(_late(TrialKey.MODEL_SEAL, trial.number), seal)


def run_ids_of(study: optuna.Study, trials: Iterable[FrozenTrial]) -> dict[int, str | None]:
    """Return the MLflow run of each trial by trial number, with one read of the study's attributes."""
    late = study.user_attrs
    return {
        trial.number: late.get(_late(TrialKey.RUN_ID, trial.number)) or trial.user_attrs.get(TrialKey.RUN_ID)
        for trial in trials
    }


def set_run_id(study: optuna.Study, trial: FrozenTrial, run_id: str) -> None:
    """Store a trial's run. Optuna locks the attributes of finished trials, so theirs is stored with the study."""
    if trial.state.is_finished():
        study.set_user_attr(_late(TrialKey.RUN_ID, trial.number), run_id)
    else:
        set_trial_user_attr(study, trial, TrialKey.RUN_ID, run_id)


def _late(key: str, number: int) -> str:
    return f"{key}_of_trial_{number}"
