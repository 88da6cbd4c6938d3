"""Report of a study: written to a folder and logged to MLflow."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import optuna

from lightning_hpo.exceptions import InputError
from lightning_hpo.report import cost, matplotlib_figures, tables
from lightning_hpo.report.figures import Figure, figures
from lightning_hpo.report.page import render_page
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.report.tables import Table
from lightning_hpo.storage.attributes import StudyKey, experiment_name, folder_of, run_ids_of
from lightning_hpo.tracking.study_run import study_run
from lightning_hpo.tracking.tracker import AWAY, Run, Tracker

__all__ = ["PAGE", "write_report"]

PAGE = "report.html"
_ARTIFACTS = "report"


def write_report(study: optuna.Study, tracker: Tracker | None, output: Path | None = None) -> list[str]:
    """Write `report.html` and a PNG of each figure, and log them to the study's MLflow run `study`.

    Args:
        study: The study; it is not changed.
        tracker: MLflow's side of it; None for a study without MLflow runs.
        output: The folder. None: `report` in the study's folder, or `STUDY-report` if that folder is missing.

    Returns:
        What was done, one line for each step.

    Raises:
        InputError: If the study has several objectives, or the folder cannot be written.
    """
    runs, problem = _find_runs(study, tracker)
    record = StudyRecord(study, runs)
    folder = output or _default_folder(study)
    try:
        written = _write(folder, record)
    except OSError as error:
        raise InputError(f"--output: cannot write to {folder}: {error.strerror}; name another folder") from error
    logged = "not logged to MLflow: the study was not made by `tune`, so it has no experiment there"
    if tracker is not None:
        logged = problem or _log(study, tracker, written)
    return [f"wrote {folder / PAGE}", logged]


def _find_runs(study: optuna.Study, tracker: Tracker | None) -> tuple[dict[int, Run], str]:
    """Return MLflow runs by trial number, and a message if MLflow is not available."""
    if tracker is None:
        return {}, ""
    try:
        experiment = tracker.find_experiment(experiment_name(study.user_attrs[StudyKey.AGENT], study.study_name))
        runs = {} if experiment is None else {run.run_id: run for run in tracker.runs(experiment)}
    except AWAY as error:
        return {}, _not_available(error)
    run_ids = run_ids_of(study, study.get_trials(deepcopy=False))
    return {number: runs[run_id] for number, run_id in run_ids.items() if run_id in runs}, ""


def _not_available(error: Exception) -> str:
    return f"not logged to MLflow, which is not available ({type(error).__name__}); run the same command again later"


def _default_folder(study: optuna.Study) -> Path:
    if "/" in study.study_name:  # from another program
        raise InputError(f"--output: required, since the name of the study {study.study_name} is no folder name")
    outdir = folder_of(study).path if StudyKey.OUTDIR in study.user_attrs else Path()
    return outdir / "report" if outdir.is_absolute() and outdir.is_dir() else Path(f"{study.study_name}-report")


def _sections(record: StudyRecord) -> list[Figure | Table]:
    history, *drawn = figures(record).values()
    return [
        *(tables.summary(record), tables.best_trial(record), history, tables.baselines(record)),
        *drawn,
        *(cost.pruning(record), cost.cost(record)),
        *(tables.splits(record), tables.data(record), tables.environment(record)),
    ]


def _write(folder: Path, record: StudyRecord) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    sections = _sections(record)
    written = [folder / PAGE]
    written[0].write_text(render_page(record, sections, datetime.now()), encoding="utf-8", errors="replace")
    for section in sections:
        if isinstance(section, Figure) and section.drawn:
            written.append(folder / f"{section.name}.png")
            matplotlib_figures.save(section, record, written[-1])
    return written


def _log(study: optuna.Study, tracker: Tracker, files: Sequence[Path]) -> str:
    agent, name = study.user_attrs[StudyKey.AGENT], study.study_name
    try:
        experiment, study_id = tracker.experiment(experiment_name(agent, name)), study.user_attrs.get(StudyKey.ID)
        run_id = study_run(tracker, experiment, name, agent, study_id=study_id)
        for path in files:
            tracker.log_file(run_id, path, _ARTIFACTS)
        tracker.set_status(run_id, "FINISHED", {})
    except AWAY as error:
        return _not_available(error)
    return f"logged to MLflow: run study ({run_id})"
