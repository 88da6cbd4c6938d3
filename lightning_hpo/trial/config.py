"""The config of a trial, in its folder and in its run."""

import hashlib
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from yaml import YAMLError

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import as_yaml, flags, read_yaml
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, TrialKey, folder_of, run_id_of
from lightning_hpo.study_folder import TrialFolder, read_file, write_whole
from lightning_hpo.tracking.entries import LogConfig
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import AWAY, Tracker

__all__ = [
    "check_config",
    "config_digest",
    "halve_batch",
    "has_config",
    "logged_config",
    "restore_config",
    "save_config",
]


_MOST_BYTES = 2**20
"""Size of the largest config that is read: longer files would take minutes to parse."""


def save_config(outbox: Outbox, config: dict[str, Any]) -> None:
    """Write the config into the trial's folder and into the outbox, from which it is sent to MLflow."""
    text = as_yaml(config)
    outbox.write(LogConfig(config, text))
    write_whole(outbox.folder.config, text)


def has_config(folder: TrialFolder, digest: str | None = None) -> bool:
    """Return whether the folder of a trial has its config. A file that a power cut has emptied is none.

    Args:
        folder: Folder of the trial.
        digest: Digest of the config in Optuna's database; None if it has none, such as for a trial of version 0.1.0.
    """
    try:
        text = read_file(folder.config, _MOST_BYTES).decode()
    except (OSError, ValueError):
        return False
    # With a digest, nothing of another file is parsed.
    return _is_config(text) if digest is None else config_digest(text) == digest


def _is_config(text: str) -> bool:
    try:
        return isinstance(read_yaml(text), dict)
    except YAMLError:
        return False


def check_config(trial: FrozenTrial, folder: TrialFolder) -> None:
    """Check that the config in the folder of a trial is the one that the trial was trained with: it names classes.

    Raises:
        InputError: If it is another one.
    """
    digest = trial.user_attrs.get(TrialKey.CONFIG_DIGEST)
    if has_config(folder) and not has_config(folder, digest):
        raise InputError(
            f"{folder.config}: it is not the config that trial {trial.number} was trained with, whose digest Optuna "
            "has; restore the file from a backup, or delete it to use the copy in MLflow"
        )


def logged_config(study: optuna.Study, trial: FrozenTrial, tracker: Tracker) -> str:
    """Return the config of a trial as its run has it, for a trial whose folder was deleted.

    Raises:
        InputError: If the trial has no run, or the run has no config that can be read, or another one.
    """
    path, run_id = folder_of(study).trial(trial.number).config, run_id_of(study, trial)
    if run_id is None:
        raise InputError(f"{path}: no such file, and trial {trial.number} has no MLflow run with a copy of its config")
    try:
        text = tracker.text(run_id, path.name)
    except (*AWAY, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: no such file, and the copy in MLflow run {run_id} cannot be read: {type(error).__name__}"
        ) from error
    if trial.user_attrs.get(TrialKey.CONFIG_DIGEST, config_digest(text)) != config_digest(text):
        raise InputError(
            f"{path}: no such file, and the copy in MLflow run {run_id} is not the config that the trial was trained "
            "with; restore the file from a backup"
        )
    if not _is_config(text):
        raise InputError(f"{path}: no such file, and the copy in MLflow run {run_id} is not a config")
    return text


def config_digest(text: str) -> str:
    """Return the SHA-256 of a config, as Optuna's database has it."""
    return hashlib.sha256(text.encode()).hexdigest()


def restore_config(study: optuna.Study, trial: FrozenTrial, tracker: Tracker) -> Path:
    """Return the config file of a trial. If it was deleted, write it again from the trial's run.

    Raises:
        InputError: As `check_config` and `logged_config`, or if the file cannot be written.
    """
    folder = folder_of(study)
    path = folder.trial(trial.number).config
    check_config(trial, folder.trial(trial.number))
    if has_config(folder.trial(trial.number)):
        return path
    text = logged_config(study, trial, tracker)
    own, run_id = study.user_attrs.get(StudyKey.ID), run_id_of(study, trial)
    if own is not None and (run_id is None or tracker.tags(run_id).get(StudyKey.ID) != own):
        raise InputError(f"{path}: no such file; it was one of the study that {study.study_name} was imported from")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if own is not None and folder.study_id is None:
            folder.write_study_id(own)
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"{path}: no such file, and it cannot be written from MLflow: {error.strerror}") from error
    return path


def halve_batch(outbox: Outbox, *, in_validation: bool = False) -> str | None:
    """Halve the trial's batch size and double its gradient accumulation, or halve the batch size of its validation.

    Args:
        outbox: Outbox of the trial.
        in_validation: Whether the trial ran out of memory in a validation. Then its batch size is halved, except with
            a limited number of validation batches, because other pairs would be scored.

    Returns:
        The new batch size in words; None, with nothing changed, if the config has no batch size that can be halved.
    """
    config = read_yaml(outbox.folder.config.read_text(encoding="utf-8"))
    values = flags(config)
    if in_validation and "data.eval_batch_size" in values:
        batch = _halved(values["data.eval_batch_size"])
        if batch is None or values.get("trainer.limit_val_batches") not in (None, 1.0):
            return None
        save_config(outbox, resolve(config, {"data.eval_batch_size": batch}))
        return f"validation batches of {batch}"
    batch = _halved(values.get("data.batch_size"))
    if batch is None:
        return None
    accumulation = 2 * values["trainer.accumulate_grad_batches"]
    save_config(outbox, resolve(config, {"data.batch_size": batch, "trainer.accumulate_grad_batches": accumulation}))
    return f"batches of {batch}"


def _halved(batch: Any) -> int | None:
    return batch // 2 if isinstance(batch, int) and batch > 1 else None
