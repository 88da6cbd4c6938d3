"""MLflow's pages over a study, as `lightning-hpo ui` shows them, and the study's report, in a real browser."""

import itertools
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from lightning_hpo.cli import main
from lightning_hpo.report.write import write_report
from tests.browser import PROGRAMS, Box, Browser
from tests.report.studies import WIDE, make_study, make_trial
from tests.server import free_port, run_server
from tests.study_sandbox import CONFIG, StudySandbox

STUDY = "shown"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found; Debian's packages are chromium and chromium-driver")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, ready_databases: Any) -> StudySandbox:
    """A folder with a small study, its registered model and its report."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "_optuna").mkdir()
    ready_databases(folder, "mlflow.db")
    made = StudySandbox(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        trainer = {"trainer": CONFIG["trainer"] | {"max_epochs": 2}}
        assert made.tune(STUDY, "--study.n_trials", "2", config=trainer) == 0
        assert main(["report", STUDY, "--storage", made.storage, "--tracking_uri", made.tracking_uri]) == 0
    return made


@pytest.fixture(scope="module")
def address(sandbox: StudySandbox) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "lightning_hpo", "ui", "--port", str(port), "--tracking_uri", sandbox.tracking_uri]
    # One process answers, and none waits for jobs that nobody gives.
    few = {"MLFLOW_WORKERS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with run_server(command, port, "/health", sandbox.folder / "ui.log", os.environ | few) as address:
        yield address


@pytest.fixture(scope="module")
def experiment(sandbox: StudySandbox, address: str) -> str:
    found = sandbox.client.get_experiment_by_name(f"foreignmodule-{STUDY}")
    assert found is not None
    return f"{address}/#/experiments/{found.experiment_id}"


def _run(sandbox: StudySandbox, name: str) -> str:
    found = sandbox.client.search_runs(["1"], f"attributes.run_name = '{name}'")
    return str(found[0].info.run_id)


def test_the_server_answers_this_machine(address: str) -> None:
    with urllib.request.urlopen(f"{address}/version") as answer:
        assert answer.read().decode() == mlflow.__version__


def test_the_experiment_is_listed(browser: Browser, address: str) -> None:
    browser.open(f"{address}/#/experiments")
    browser.read(f"foreignmodule-{STUDY}")


def test_every_trial_is_listed_and_the_study_beside_them(browser: Browser, experiment: str) -> None:
    browser.open(f"{experiment}/runs")
    browser.read("trial_0", "trial_1", "study", "3 matching runs")


def test_a_trial_has_a_learning_curve_with_a_point_an_epoch(
    browser: Browser, experiment: str, sandbox: StudySandbox
) -> None:
    browser.open(f"{experiment}/runs/{_run(sandbox, 'trial_0')}/model-metrics")
    (search,) = browser.find("input[placeholder='Search metric charts']")
    search.send_keys("val_metric")
    browser.read("Model metrics (1)", "trial_0 (val_metric)")
    assert len(browser.find(".scatterlayer .trace .point", 2)) == 2


def test_the_report_is_among_the_artifacts_of_the_study(
    browser: Browser, experiment: str, sandbox: StudySandbox
) -> None:
    browser.open(f"{experiment}/runs/{_run(sandbox, 'study')}/artifacts/report/report.html")
    (frame,) = browser.find("iframe")
    browser.driver.switch_to.frame(frame)
    browser.read(f"Study {STUDY}", "best so far")
    assert len(browser.find("#history .scatterlayer .trace", 2)) == 2


def test_the_registered_version_has_its_alias(browser: Browser, address: str) -> None:
    browser.open(f"{address}/#/models/foreignmodule-best-model")
    browser.read("Version 1", "@ production", f"study : {STUDY}")


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with many and long names, which is open and drawn."""
    folder = tmp_path_factory.mktemp("page")
    write_report(make_study(None, [make_trial(number, kinds=WIDE) for number in range(60)]), None, folder)
    address = (folder / "report.html").as_uri()
    browser.open(address)
    count = len(browser.find(".plotly-graph-div"))
    assert len(browser.find(".plotly-graph-div > .plot-container .infolayer", count)) == count
    return address


def test_a_report_opens_from_its_file_without_a_request_or_a_complaint(browser: Browser, page: str) -> None:
    assert browser.requests() == [page]
    assert browser.console_messages() == []


def test_nothing_on_the_page_lies_on_another_or_is_wider_than_it(browser: Browser, page: str) -> None:
    (left, _, right, _) = browser.boxes("html")[0]
    notes = browser.boxes("#parallel .annotation-text")
    assert len(notes) > 20
    for kind in (".annotation-text", ".xtick text", ".ytick text", "table", "pre"):
        assert all(box[0] >= left and box[2] <= right for box in browser.boxes(kind)), kind
    overlapping = [pair for pair in itertools.combinations(notes, 2) if _overlap(*pair)]
    assert overlapping == []


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
