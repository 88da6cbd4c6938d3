"""Ownership: a study owns the folder and the runs that carry its id. Names are only labels.

The id is generated once. It is written to the study's folder first, then to the runs of a study without an id, then to
Optuna. After a crash in between, the same steps finish with the id that the folder has.
"""

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna

from lightning_hpo.config.flags import flags, read_yaml
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.storage.attributes import StudyKey, folder_of, run_ids_of
from lightning_hpo.study_folder import StudyFolder
from lightning_hpo.tracking.tracker import Run, Tracker
from lightning_hpo.trial.config import has_config

__all__ = ["claim", "folder_problems", "owns_folder", "owns_run", "place", "tracking_problems", "tracking_uri_text"]

_LATEST_RUNS = 3


def folder_problems(folder: StudyFolder, study: optuna.Study | None, name: str) -> list[str]:
    """Return why a study cannot use a folder: another study owns it, or this study has one elsewhere.

    Args:
        folder: The folder that the command names.
        study: The study in Optuna's database, or None if there is none of that name.
        name: Name of the study.
    """
    begun = study if study is not None and StudyKey.AGENT in study.user_attrs else None
    own = None if begun is None else begun.user_attrs.get(StudyKey.ID)
    there, used = folder.study_id, any(folder.trials())
    change = "use another --study.name or --study.outdir"
    if begun is None:
        if used:
            return [
                f"--study.outdir: {folder.path} holds trials of a study that --study.storage does not have; {change}, "
                "or name the database of that study"
            ]
        return []
    if there is not None and there != own and (own is not None or not _agree(begun, folder)):
        return [f"--study.outdir: {folder.path} does not belong to {name} in --study.storage; {change}"]
    if there is None and used and (own is not None or not _agree(begun, folder)):
        return [
            f"--study.outdir: {folder.path} holds trials, but not the id of {name}; {change}"
            + ("" if own is None else f"; if they are its trials, write {own} to {folder.study_id_file}")
        ]
    return _other_folder(folder, begun) if own is not None or not used else []


def _other_folder(folder: StudyFolder, study: optuna.Study) -> list[str]:
    """Refuse a second folder of a study while its first one is there."""
    known = folder_of(study)
    if known.path.resolve() == folder.path.resolve() or not _holds(known, study):
        return []
    return [
        f"--study.outdir: {study.study_name} has the folder {known.path}; use --study.outdir {known.path.parent}, or "
        f"move it to {folder.path}"
    ]


def _holds(folder: StudyFolder, study: optuna.Study) -> bool:
    own = study.user_attrs.get(StudyKey.ID)
    return folder.study_id == own if own is not None else any(folder.trials())


def _agree(study: optuna.Study, folder: StudyFolder) -> bool:
    """Return whether a folder's trial configs match the study's parameters. For studies without an id."""
    trials = study.get_trials(deepcopy=False)
    for trial_folder in folder.trials():
        if trial_folder.number >= len(trials):
            return False
        if not has_config(trial_folder):  # the study was stopped before it saved the config
            continue
        config: dict[str, Any] = flags(read_yaml(trial_folder.config.read_text(encoding="utf-8")))
        sampled = trials[trial_folder.number].params
        # A refit samples a trial number too, which is not a flag.
        if any(name in config and config[name] != value for name, value in sampled.items()):
            return False
    return True


def tracking_problems(study: optuna.Study, uri: str) -> list[str]:
    """Return why a study cannot be recorded in a tracking database or server: it does not have the study's runs."""
    stored = study.user_attrs.get(StudyKey.TRACKING_URI)
    if stored == tracking_uri_text(uri):
        return []
    run_ids = [run_id for run_id in run_ids_of(study, study.get_trials(deepcopy=False)).values() if run_id is not None]
    if not run_ids:
        return []
    url = DatabaseUrl(uri, "--study.tracking_uri")
    if not url.is_missing:
        tracker = Tracker(uri)
        # A server or a moved database of another address is the same one if it has the runs.
        if any(tracker.has_run(run_id) for run_id in run_ids[-_LATEST_RUNS:]):
            return []
    return [
        f"--study.tracking_uri: {study.study_name} has its runs in {stored or 'another database'}, and {url.masked} "
        "has none of them; use the former (check MLFLOW_TRACKING_URI), or another --study.name"
    ]


def tracking_uri_text(uri: str) -> str:
    """Return a tracking URI without its password, and an SQLite file with its absolute path."""
    url = DatabaseUrl(uri, "--study.tracking_uri")
    return url.masked.rstrip("/") if url.path is None else f"sqlite:///{url.path}"


def place(folder: Path, storage: DatabaseUrl) -> dict[str, str]:
    """Return the attributes by which `folder_of` finds the folder of a study, also after a move of the whole study."""
    attributes = {StudyKey.OUTDIR: str(folder.absolute())}
    if storage.path is not None:
        attributes[StudyKey.FOLDER] = os.path.relpath(folder.absolute(), storage.path.parent)
    return attributes


def claim(study: optuna.Study | None, folder: StudyFolder, tracker: Tracker) -> str:
    """Return the id of a study and store it in its folder and runs; generate one for a new study.

    Args:
        study: The study, or None if Optuna's database does not have it yet. The caller stores the id in Optuna.
        folder: Its folder, after `folder_problems`.
        tracker: MLflow's side of it.
    """
    begun = study is not None and StudyKey.AGENT in study.user_attrs
    own = None if study is None else study.user_attrs.get(StudyKey.ID)
    drawn: str = own or (folder.study_id if begun else None) or uuid4().hex
    if folder.study_id != drawn:
        folder.write_study_id(drawn)
    if own is None and study is not None and begun:
        for number, run_id in run_ids_of(study, study.get_trials(deepcopy=False)).items():
            run = None if run_id is None else tracker.run(run_id)
            if run is not None and StudyKey.ID not in run.tags and _names(run, study, number):
                tracker.set_tags(run.run_id, {StudyKey.ID: drawn})
    return drawn


def _names(run: Run, study: optuna.Study, number: int) -> bool:
    return (run.tags.get("optuna_study"), run.tags.get("optuna_trial")) == (study.study_name, str(number))


def owns_folder(study: optuna.Study) -> bool:
    """Return whether the folder of a study is its own, and not that of the study that it was imported from."""
    folder, own = folder_of(study), study.user_attrs.get(StudyKey.ID)
    return folder.study_id == own


def owns_run(study: optuna.Study, run: Run) -> bool:
    """Return whether a run that a trial names belongs to the study. If the study has no id, return True."""
    own = study.user_attrs.get(StudyKey.ID)
    return own is None or run.tags.get(StudyKey.ID) == own
