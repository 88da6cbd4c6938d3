"""Names of the attributes that Optuna stores with a study and with its trials."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_hpo.storage.optuna_private import set_trial_user_attr
from lightning_hpo.study_folder import StudyFolder

__all__ = [
    "StudyKey",
    "TrialKey",
    "experiment_name",
    "folder_of",
    "run_id_of",
    "run_ids_of",
    "set_run_id",
    "update_attributes",
]


class StudyKey:
    """Names of a study's attributes. The values are on disk in existing databases."""

    AGENT = "agent"
    MONITOR = "monitor"
    MODE = "mode"
    OUTDIR = "outdir"
    DATA_FINGERPRINT = "data_fingerprint"
    DATA_COUNTS = "data_counts"
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
    REFIT_OF = "refit_of"
    REFIT_CANDIDATES = "refit_candidates"
    REFIT_TESTED = "refit_tested"


class TrialKey:
    """Names of a trial's attributes."""

    RUN_ID = "mlflow_run_id"
    MODEL_URI = "mlflow_model_uri"
    RUNTIME = "runtime_s"
    """Seconds of training over all attempts, without those of killed processes."""
    WORKER = "worker"
    """Host, process, device and start of the process that trains a trial, or trained it last."""
    CRASHES = "deaths"
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
    return StudyFolder(Path(study.user_attrs[StudyKey.OUTDIR]))


def update_attributes(study: optuna.Study, attributes: Mapping[str, Any]) -> None:
    """Store the study attributes that are missing or have changed."""
    stored = study.user_attrs
    for key, value in attributes.items():
        if key not in stored or stored[key] != value:
            study.set_user_attr(key, value)


def run_id_of(study: optuna.Study, trial: FrozenTrial) -> str | None:
    """Return the MLflow run of a trial, or None if it has none yet."""
    return run_ids_of(study, [trial])[trial.number]


def run_ids_of(study: optuna.Study, trials: Iterable[FrozenTrial]) -> dict[int, str | None]:
    """Return the MLflow run of each trial by trial number, with one read of the study's attributes."""
    late = study.user_attrs
    return {
        trial.number: late.get(_late_run_id(trial.number)) or trial.user_attrs.get(TrialKey.RUN_ID) for trial in trials
    }


def set_run_id(study: optuna.Study, trial: FrozenTrial, run_id: str) -> None:
    """Store a trial's run. Optuna locks the attributes of finished trials, so theirs is stored with the study."""
    if trial.state.is_finished():
        study.set_user_attr(_late_run_id(trial.number), run_id)
    else:
        set_trial_user_attr(study, trial, TrialKey.RUN_ID, run_id)


def _late_run_id(number: int) -> str:
    return f"{TrialKey.RUN_ID}_of_trial_{number}"
