"""A study owns what carries its id: its folder and its runs. Names are only labels."""

import contextlib
import gc
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from mlflow.entities import ViewType

from lightning_hpo.cli import main
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.storage.attributes import StudyKey, folder_of, locate_folder, run_id_of, update_attributes
from lightning_hpo.study.ownership import claim, folder_problems, owns_folder, place, tracking_problems
from lightning_hpo.study_folder import StudyFolder
from lightning_hpo.tracking.tracker import Tracker
from tests.study_sandbox import StudySandbox

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "outputs/first")


def _begin(study: optuna.Study, folder: StudyFolder, study_id: str | None = "a1") -> None:
    attributes = {StudyKey.AGENT: "criteria", StudyKey.OUTDIR: str(folder.path)}
    update_attributes(study, attributes | ({} if study_id is None else {StudyKey.ID: study_id}))


def _train(study: optuna.Study, folder: StudyFolder, lr: float | None = None) -> optuna.Trial:
    trial = study.ask()
    value = trial.suggest_float("model.lr", 0.0, 1.0)
    path = folder.trial(trial.number).config
    path.parent.mkdir(parents=True)
    path.write_text(f"model:\n  lr: {value if lr is None else lr}\n", encoding="utf-8")
    return trial


def _write_id(folder: StudyFolder, study_id: str) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.study_id_file.write_text(f"{study_id}\n", encoding="utf-8")


def test_new_study_takes_a_new_folder(folder: StudyFolder, study: optuna.Study) -> None:
    assert folder_problems(folder, None, "first") == []
    assert folder_problems(folder, study, "first") == []  # created by plain Optuna, or by a command that was killed
    _write_id(folder, "b2")  # of a command that was killed before it created the study
    assert folder_problems(folder, None, "first") == []


def test_folder_with_trials_of_an_unknown_study_is_refused(folder: StudyFolder, study: optuna.Study) -> None:
    _train(study, folder)
    [problem] = folder_problems(folder, None, "first")
    assert problem.startswith(
        f"--study.outdir: {folder.path} holds trials of a study that --study.storage does not have"
    )
    assert folder_problems(folder, study, "first") == [problem]  # the study is not the one of these trials: not begun


@pytest.mark.parametrize("own", ["a1", None])
def test_folder_of_another_study_is_refused(folder: StudyFolder, study: optuna.Study, own: str | None) -> None:
    _begin(study, folder, own)
    _train(study, folder, lr=7.0)
    _write_id(folder, "b2")
    [problem] = folder_problems(folder, study, "first")
    assert "does not belong to first in" in problem
    _write_id(folder, "a1")
    assert folder_problems(folder, study, "first") == ([] if own else [problem])


def test_folder_without_an_id_is_that_of_a_study_from_before_if_the_trials_agree(
    folder: StudyFolder, study: optuna.Study
) -> None:
    _begin(study, folder, None)
    _train(study, folder)
    assert folder_problems(folder, study, "first") == []
    _train(study, folder, lr=7.0)
    [problem] = folder_problems(folder, study, "first")
    assert "holds trials, but not the id of first" in problem
    shutil.rmtree(folder.trial(1).path)
    (folder.path / "trial_9").mkdir()
    assert folder_problems(folder, study, "first") == [problem]


def test_folder_that_lost_its_id_is_not_guessed(folder: StudyFolder, study: optuna.Study) -> None:
    _begin(study, folder)
    _train(study, folder)
    [problem] = folder_problems(folder, study, "first")
    assert problem.endswith(f"if they are its trials, write a1 to {folder.study_id_file}")


def test_second_folder_is_refused_while_the_first_is_there(
    folder: StudyFolder, study: optuna.Study, tmp_path: Path
) -> None:
    _begin(study, folder)
    other = StudyFolder(tmp_path / "other/first")
    assert folder_problems(other, study, "first") == []  # the first one was deleted
    _write_id(folder, "a1")
    [problem] = folder_problems(other, study, "first")
    assert f"use --study.outdir {folder.path.parent}, or move it to {other.path}" in problem
    shutil.move(folder.path, other.path)
    assert folder_problems(other, study, "first") == []


def test_id_is_drawn_once(folder: StudyFolder, study: optuna.Study, tracker: Tracker) -> None:
    folder.path.mkdir(parents=True)
    drawn = claim(study, folder, tracker)
    assert (len(drawn), folder.study_id) == (32, drawn)
    assert claim(None, folder, tracker) != drawn  # a new study, in a folder that no study has used
    _begin(study, folder, drawn)
    assert claim(study, folder, tracker) == drawn == folder.study_id


def test_study_from_before_gets_an_id_that_its_runs_carry(
    folder: StudyFolder, study: optuna.Study, tracker: Tracker
) -> None:
    _begin(study, folder, None)
    experiment = tracker.experiment("criteria-first")
    runs = []
    for tags in ({"optuna_trial": "0", "optuna_study": "first"}, {"optuna_trial": "1", "optuna_study": "other"}):
        trial = _train(study, folder)
        runs.append(tracker.start_run(experiment, "run", tags))
        trial.set_user_attr("mlflow_run_id", runs[-1])
    stranger = tracker.start_run(experiment, "trial_0", {"optuna_trial": "0", "optuna_study": "first"})
    drawn = claim(study, folder, tracker)
    carried = [tracker.tags(run_id).get("study_id") for run_id in (*runs, stranger)]
    assert carried == [drawn, None, None]  # the second run does not agree, and no trial names the third
    # Killed before Optuna had the id: the same one again.
    assert claim(study, folder, tracker) == drawn


def test_study_is_found_where_it_was_moved_with_its_database(folder: StudyFolder, tmp_path: Path) -> None:
    storage = DatabaseUrl(f"sqlite:///{tmp_path}/_optuna/dataaug.db", "--study.storage")
    attributes = place(folder.path, storage)
    assert attributes == {"outdir": str(folder.path), "folder": "../outputs/first"}
    moved = tmp_path / "moved"
    database = moved / "_optuna/dataaug.db"
    assert locate_folder(attributes, database) == moved / "outputs/first"  # neither is there
    folder.path.mkdir(parents=True)
    assert locate_folder(attributes, database) == folder.path  # only the database was copied
    (moved / "outputs/first").mkdir(parents=True)
    assert locate_folder(attributes, database) == moved / "outputs/first"
    assert locate_folder(attributes, storage.path) == folder.path
    assert locate_folder(attributes, None) == folder.path


@pytest.fixture
def runs(study: optuna.Study, tracker: Tracker, folder: StudyFolder) -> list[str]:
    _begin(study, folder)
    experiment = tracker.experiment("criteria-first")
    found = [tracker.start_run(experiment, f"trial_{number}", {"study_id": "a1"}) for number in range(2)]
    for run_id in found:
        study.ask().set_user_attr("mlflow_run_id", run_id)
    return found


def test_another_tracking_database_is_refused(
    study: optuna.Study, runs: list[str], tracking_uri: str, tmp_path: Path, ready_databases: Callable[..., str]
) -> None:
    study.set_user_attr(StudyKey.TRACKING_URI, tracking_uri)
    assert tracking_problems(study, tracking_uri) == []
    other = tmp_path / "other"
    other.mkdir()
    for uri in (ready_databases(other, "mlflow.db"), f"sqlite:///{tmp_path}/missing.db"):
        [problem] = tracking_problems(study, uri)
        assert problem.startswith(
            f"--study.tracking_uri: first has its runs in {tracking_uri}, and {uri} has none of them"
        )
    assert not (tmp_path / "missing.db").exists()


def test_moved_tracking_database_is_known_by_its_runs(
    study: optuna.Study, runs: list[str], tracking_uri: str, tmp_path: Path
) -> None:
    study.set_user_attr(StudyKey.TRACKING_URI, "http://old:5000")
    with (
        contextlib.closing(sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))) as source,
        contextlib.closing(sqlite3.connect(tmp_path / "moved.db")) as target,
    ):
        source.backup(target)
    assert tracking_problems(study, f"sqlite:///{tmp_path}/moved.db") == []


# Whole commands.


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _all_runs(sandbox: StudySandbox, study: str) -> dict[str, tuple[str, str, int]]:
    experiment = sandbox.client.get_experiment_by_name(f"foreignmodule-{study}")
    assert experiment is not None
    found = sandbox.client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    return {run.info.run_id: (run.info.status, run.info.lifecycle_stage, len(run.data.params)) for run in found}


def test_folder_of_a_deleted_database_is_refused_unchanged(sandbox: StudySandbox, capsys: Captured) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    (sandbox.folder / "_optuna/dataaug.db").unlink()
    for path in (sandbox.folder / "_optuna").iterdir():
        path.unlink()
    before, runs = _digests(sandbox.folder / "outputs"), _all_runs(sandbox, "first")
    assert sandbox.tune("first", "--study.n_trials", "2", "--study.register", "false") == 2
    assert f"{sandbox.outdir}/first holds trials of a study that" in capsys.readouterr().err
    assert (_digests(sandbox.folder / "outputs"), _all_runs(sandbox, "first")) == (before, runs)
    assert list((sandbox.folder / "_optuna").iterdir()) == []


def test_studies_of_one_name_share_a_tracker_without_harm(sandbox: StudySandbox) -> None:
    other = StudySandbox(sandbox.folder / "other")
    (other.folder / "_optuna").mkdir(parents=True)
    other.tracking_uri = sandbox.tracking_uri
    for count in ("1", "2"):
        for each in (sandbox, other):
            assert each.tune("first", "--study.n_trials", count, "--study.register", "false") == 0
    for each in (sandbox, other):
        where = ["--storage", each.storage, "--tracking_uri", each.tracking_uri]
        assert main(["reconcile", *where]) == 0
    runs = _all_runs(sandbox, "first")
    assert {(status, stage) for status, stage, _ in runs.values()} == {("FINISHED", "active")}
    ids = set()
    for each in (sandbox, other):
        study = optuna.load_study(study_name="first", storage=each.storage)
        ids.add(study.user_attrs["study_id"])
        own = [run_id_of(study, trial) for trial in study.trials]
        assert len(own) == 2
        tags = [sandbox.client.get_run(str(run_id)).data.tags for run_id in own]
        assert [each["study_id"] for each in tags] == [study.user_attrs["study_id"]] * 2
    assert (len(ids), len(runs)) == (2, 4)


def test_moved_and_copied_studies_go_on_where_they_are(
    sandbox: StudySandbox, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    copied = StudySandbox(tmp_path_factory.mktemp("elsewhere") / "copied")
    gc.collect()  # closes the connections, and SQLite then removes its files of the latest transactions
    shutil.copytree(sandbox.folder, copied.folder)
    before = _digests(sandbox.folder)
    monkeypatch.chdir(copied.folder)
    assert folder_of(optuna.load_study(study_name="first", storage=copied.storage)).path.is_relative_to(copied.folder)
    assert copied.tune("first", "--study.n_trials", "2", "--study.register", "false") == 0
    assert _digests(sandbox.folder) == before
    moved = StudySandbox(copied.folder.parent / "moved")
    monkeypatch.chdir(copied.folder.parent)
    copied.folder.rename(moved.folder)
    monkeypatch.chdir(moved.folder)
    assert moved.tune("first", "--study.n_trials", "3", "--study.register", "false") == 0
    assert not copied.folder.exists()
    assert {path.name for path in (moved.folder / "outputs/first").glob("trial_*")} == {"trial_0", "trial_1", "trial_2"}
    assert len(moved.runs("first")) == 3
    artifacts = {run.info.artifact_uri for run in moved.runs("first").values()}
    assert all(uri.startswith(f"{moved.folder}/mlruns/") for uri in artifacts)


def test_cleaned_folder_is_restored_from_the_run(sandbox: StudySandbox, capsys: Captured) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    shutil.rmtree(sandbox.outdir)
    where = ["--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri]
    capsys.readouterr()
    assert main(["register", "--study", "first", *where]) == 1  # the outputs of a custom module are compared
    assert "best.ckpt was deleted, so there are no weights to compare" in capsys.readouterr().err
    study = optuna.load_study(study_name="first", storage=sandbox.storage)
    assert folder_of(study).study_id == study.user_attrs["study_id"]
    assert main(["refit", "first", "--trials", "1", "--seeds", "1", "--no-test", *where]) == 0


def test_imported_study_leaves_folder_and_runs_to_the_original(sandbox: StudySandbox, capsys: Captured) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    target = f"sqlite:///{sandbox.folder}/copy.db"
    assert main(["import-study", "--from", sandbox.storage, "--storage", target]) == 0
    original = optuna.load_study(study_name="first", storage=sandbox.storage)
    imported = optuna.load_study(study_name="first", storage=target)
    assert imported.user_attrs["study_id"] != original.user_attrs["study_id"]
    assert (owns_folder(original), owns_folder(imported)) == (True, False)
    before, runs = _digests(sandbox.folder / "outputs"), _all_runs(sandbox, "first")
    capsys.readouterr()
    assert main(["reconcile", "--storage", target, "--tracking_uri", sandbox.tracking_uri]) == 0
    assert "skipped: the folder" in capsys.readouterr().out
    assert (_digests(sandbox.folder / "outputs"), _all_runs(sandbox, "first")) == (before, runs)
