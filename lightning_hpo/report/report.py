"""The report of a study: made, written to a folder, and logged to MLflow."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import optuna

from lightning_hpo.exceptions import InputError
from lightning_hpo.report import course, parameters, savings, scores, still, tables
from lightning_hpo.report.page import page
from lightning_hpo.report.picture import Picture
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.report.table import Table
from lightning_hpo.storage.attributes import run_ids_of
from lightning_hpo.tracking.tracker import AWAY, Run, Tracker

__all__ = ["PAGE", "write_report"]

PAGE = "report.html"
_ARTIFACTS = "report"


def write_report(study: optuna.Study, tracker: Tracker | None, output: Path | None = None) -> list[str]:
    """Write `report.html` and a PNG of each picture that shows something, and log them to the study's run `study`.

    Args:
        study: The study; nothing of it is changed.
        tracker: MLflow's side of it; None where it has none.
        output: The folder. None: `report` in the study's own folder, or `STUDY-report` if that one is not here.

    Returns:
        What was done, a line each.

    Raises:
        InputError: If the study has several objectives, or the folder cannot be written.
    """
    runs, problem = _runs(study, tracker)
    record = StudyRecord(study, runs)
    folder = output or _folder(record)
    try:
        written = _write(folder, f"Study {record.name}", _parts(record))
    except OSError as error:
        raise InputError(f"--output: cannot write to {folder}: {error.strerror}; name another folder") from error
    lines = [f"wrote {folder / PAGE}"]
    if tracker is None:
        return [*lines, "not logged to MLflow: the study was not made by `tune`, so it has no experiment there"]
    return [*lines, problem or _logged(record, tracker, written)]


def _runs(study: optuna.Study, tracker: Tracker | None) -> tuple[dict[int, Run], str]:
    """The runs of the trials by their numbers, and what is to be said if MLflow is away."""
    if tracker is None:
        return {}, ""
    try:
        experiment = tracker.find_experiment(_experiment(study.user_attrs, study.study_name))
        runs = {} if experiment is None else {run.run_id: run for run in tracker.runs(experiment)}
    except AWAY as error:
        return {}, _away(error)
    owned = run_ids_of(study, study.get_trials(deepcopy=False))
    return {number: runs[run_id] for number, run_id in owned.items() if run_id in runs}, ""


def _experiment(about: Mapping[str, object], name: str) -> str:
    return f"{about['agent']}-{name}"


def _away(error: Exception) -> str:
    return f"not logged to MLflow, which does not answer ({type(error).__name__}): the same command does it later"


def _folder(record: StudyRecord) -> Path:
    own = Path(str(record.about.get("outdir", "")))
    here = own.is_absolute() and own.is_dir()
    return own / "report" if here else Path(f"{record.name}-report")


def _parts(record: StudyRecord) -> list[Picture | Table]:
    shares = parameters.importances(record)
    return [
        tables.summary(record),
        tables.winner(record),
        scores.history(record),
        tables.constants(record),
        scores.curves(record),
        parameters.importance(record, shares),
        parameters.slices(record, shares),
        parameters.parallel(record, shares),
        course.timeline(record),
        course.endings(record),
        savings.pruning(record),
        savings.cost(record),
        tables.data(record),
        tables.environment(record),
    ]


def _write(folder: Path, title: str, parts: Sequence[Picture | Table]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / PAGE]
    written[0].write_text(page(title, parts, datetime.now()), encoding="utf-8")
    for part in parts:
        if isinstance(part, Picture) and part.panels:
            written.append(folder / f"{part.name}.png")
            still.save(part, written[-1])
    return written


def _logged(record: StudyRecord, tracker: Tracker, files: Sequence[Path]) -> str:
    try:
        experiment = tracker.experiment(_experiment(record.about, record.name))
        run_id = tracker.study_run(experiment, record.name, str(record.about["agent"]))
        for path in files:
            tracker.log_file(run_id, path, _ARTIFACTS)
        tracker.set_status(run_id, "FINISHED", {})
    except AWAY as error:
        return _away(error)
    return f"logged to MLflow: run study ({run_id})"
