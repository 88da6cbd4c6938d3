"""Complete reports of SQLite studies, logged to an MLflow database."""

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow.entities import Run
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

import lightning_hpo
from lightning_hpo.cli import main
from lightning_hpo.report.write import write_report
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.reconciliation import reconcile
from lightning_hpo.tracking.tracker import Tracker
from tests.report.studies import ABOUT, KINDS, all_outcomes, make_study, make_trial
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]
FIGURES = ["curves", "history", "importance", "outcomes", "parallel", "slices", "timeline"]
MANY: dict[str, BaseDistribution] = {
    **KINDS,
    **{f"model.some.group.parameter_{number}": FloatDistribution(0, 1) for number in range(15)},
}


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def _study(storage_url: str, folder: Path, trials: list[FrozenTrial], tracker: Tracker | None = None) -> optuna.Study:
    """Return the study with its folder, and with a run for each trial if there is a tracker."""
    for trial in trials if tracker else []:
        assert tracker is not None
        tags = {"optuna_study": "first", "optuna_trial": str(trial.number), "device": "cpu", "version.torch": "2.13.0"}
        run_id = tracker.start_run(tracker.experiment("criteria-first"), f"trial_{trial.number}", tags)
        tracker.set_status(run_id, "FINISHED", {})
        trial.user_attrs[TrialKey.RUN_ID] = run_id
    with lock_study(folder / "first"):
        return make_study(storage_url, trials, ABOUT | {"outdir": str(folder / "first")})


def _runs(tracker: Tracker) -> list[Run]:
    experiment = tracker.find_experiment("criteria-first")
    return list(tracker.client.search_runs([str(experiment)]))


def _report(storage_url: str, tracking_uri: str, *more: str) -> int:
    return main(["report", "first", "--storage", storage_url, "--tracking_uri", tracking_uri, *more])


def test_command_writes_the_page_and_the_figures(
    storage_url: str, tracking_uri: str, tmp_path: Path, capsys: Captured
) -> None:
    study = _study(storage_url, tmp_path, all_outcomes())
    assert _report(storage_url, tracking_uri) == 0
    folder = tmp_path / "first" / "report"
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in FIGURES} | {"report.html"}
    lines = capsys.readouterr().out
    assert f"wrote {folder / 'report.html'}" in lines
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"fit --config {tmp_path}/first/trial_{study.best_trial.number}/config.yaml" in page
    for words in ("always met", "0.4242", "1484", "out of memory", "model.optim.lr", "Saved by pruning"):
        assert words in page


def test_repeated_reports_are_logged_to_one_run(
    storage_url: str, tracker: Tracker, tracking_uri: str, tmp_path: Path
) -> None:
    study = _study(storage_url, tmp_path, [make_trial(number) for number in range(3)], tracker)
    assert len(_runs(tracker)) == 3
    for _ in range(2):
        assert _report(storage_url, tracking_uri) == 0
        (run,) = (run for run in _runs(tracker) if run.info.run_name == "study")
        assert run.info.status == "FINISHED"
        assert not [tag for tag in run.data.tags if tag.startswith("optuna")]
        assert len(_runs(tracker)) == 4
    artifacts = {file.path for file in tracker.client.list_artifacts(run.info.run_id, "report")}
    assert artifacts == {f"report/{name}.png" for name in FIGURES} | {"report/report.html"}
    # The runs of the trials are unchanged, and `reconcile` accepts the run of the study.
    assert reconcile(study, tracker) == ["nothing to repair"]
    assert len(_runs(tracker)) == 4


def test_page_shows_the_environment_of_the_runs(storage_url: str, tracker: Tracker, tmp_path: Path) -> None:
    study = _study(storage_url, tmp_path, [make_trial(0)], tracker)
    write_report(study, tracker, tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert '<tr><th scope="row">torch</th><td>2.13.0</td><td>1</td></tr>' in page


def test_page_is_written_even_if_mlflow_is_not_available(storage_url: str, tmp_path: Path, capsys: Captured) -> None:
    _study(storage_url, tmp_path, [make_trial(0)])
    assert _report(storage_url, "http://127.0.0.1:9", "--output", "here") == 0
    assert (tmp_path / "here" / "report.html").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("not logged to MLflow, which is not available (")


def test_imported_study_needs_no_mlflow(storage_url: str, tmp_path: Path, capsys: Captured) -> None:
    make_study(storage_url, [make_trial(0), make_trial(1)], {})
    assert _report(storage_url, f"sqlite:///{tmp_path}/none.db") == 0
    assert (tmp_path / "first-report" / "report.html").exists()
    assert "was not made by `tune`" in capsys.readouterr().out
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("trials", "kinds"),
    [
        ([], KINDS),
        ([TrialState.COMPLETE], KINDS),
        ([TrialState.COMPLETE] * 2, KINDS),
        ([TrialState.FAIL] * 3, KINDS),
        ([TrialState.RUNNING, TrialState.WAITING], KINDS),
        ([TrialState.COMPLETE] * 5, {"model.optim.lr": KINDS["model.optim.lr"]}),
        ([TrialState.COMPLETE] * 5, {name: KINDS[name] for name in ("model.name", "aug.enabled")}),
    ],
    ids=["none", "one", "two", "failed", "running", "one-parameter", "categorical"],
)
def test_every_section_has_a_figure_or_a_caption_that_says_why_not(
    trials: list[TrialState], kinds: dict[str, BaseDistribution], tmp_path: Path
) -> None:
    made = [make_trial(number, state, kinds) for number, state in enumerate(trials)]
    write_report(make_study(None, made), None, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in FIGURES:
        (section,) = page.split(f'<section id="{name}"')[1:]
        section = section.split("</section>")[0]
        assert ("plotly-graph-div" in section) == (tmp_path / f"{name}.png").exists()
        assert "<p>" in section


def test_study_with_an_infinite_score_has_a_report(tmp_path: Path) -> None:
    made = [make_trial(number) for number in range(4)]
    made[2].value = float("inf")
    write_report(make_study(None, made), None, tmp_path)
    assert (tmp_path / "slices.png").exists()


def test_page_of_a_thousand_trials_with_twenty_parameters_is_below_eight_megabytes(tmp_path: Path) -> None:
    states = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED)
    study = make_study(None, [make_trial(number, states[number % 4], MANY) for number in range(1000)])
    write_report(study, None, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 8e6
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in MANY)


@pytest.mark.parametrize("package", ["plotly", "matplotlib"])
def test_missing_package_is_a_one_line_error_with_the_extra(
    package: str, storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    make_study(storage_url, [], {})
    monkeypatch.setattr("lightning_hpo.report", lightning_hpo.report)  # importing the package again replaces it
    for name in [name for name in sys.modules if name.startswith(("lightning_hpo.report", package))]:
        monkeypatch.delitem(sys.modules, name)
    blocked: Any = None
    monkeypatch.setitem(sys.modules, package, blocked)
    assert _report(storage_url, f"sqlite:///{tmp_path}/none.db") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: report: it needs ")
    assert package in line
    assert line.endswith("pip install 'lightning-text-hpo[report]'")


def test_bad_input_is_a_one_line_error(storage_url: str, tracking_uri: str, tmp_path: Path, capsys: Captured) -> None:
    _study(storage_url, tmp_path, [make_trial(0)])
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["report"], "the following arguments are required: STUDY; see lightning-hpo report --help"),
        (["report", "second", "--storage", storage_url], "--study second: no such study in "),
        (["report", "first", "--storage", storage_url, "--tracking_uri", "sqlite:///no.db"], "there is no database"),
        (
            ["report", "first", "--storage", storage_url, "--tracking_uri", tracking_uri, "--output", "file"],
            "--output: cannot write to file: ",
        ),
    ):
        with unchanged(tmp_path):
            assert main(arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
