"""Contenders get the same pairs, ratios divide the right figures, and copied trials are complete."""

import io
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.tracking.tracker import Tracker
from scripts.benchmarks import peak_memory
from scripts.benchmarks.comparison import ratios
from scripts.benchmarks.demo_study import DemoStudy, between
from scripts.benchmarks.figures import Figures, Ratio
from scripts.benchmarks.gpu import figures as gpu
from scripts.benchmarks.gpu import plan
from scripts.benchmarks.machine import machine
from scripts.benchmarks.peak_memory import PeakMemory
from scripts.benchmarks.setting import Result, Setting, prepare, read_setting
from scripts.benchmarks.this_project import count_batches
from scripts.benchmarks.trial_copies import copy_trials


def test_all_contenders_use_the_same_pairs(tmp_path: Path) -> None:
    DemoCorpus(60, 17).write(tmp_path)
    files = (tmp_path / "posts.csv", tmp_path / "annotations.csv", tmp_path / "criteria.yaml")
    folder = tmp_path / "comparison"
    folder.mkdir()
    setting = prepare(Setting(folder=folder, train_pairs=20, epochs=2, max_length=256), *files)
    assert read_setting(str(folder)) == setting
    assert (len(setting.pairs("train")), len(setting.pairs("val"))) == (20, 40)
    assert {met for _, _, met in setting.pairs("val")} == {0, 1}
    result = Result()
    count_batches(setting, result)
    assert result.samples == 40
    assert 0 < result.padding < result.tokens
    result.write(setting)
    assert json.loads((folder / "result.json").read_text())["samples"] == 40


def test_too_few_posts_are_refused(tmp_path: Path) -> None:
    DemoCorpus(20, 17).write(tmp_path)
    files = (tmp_path / "posts.csv", tmp_path / "annotations.csv", tmp_path / "criteria.yaml")
    with pytest.raises(SystemExit, match="too few annotated posts fit into one window for 500 training pairs"):
        prepare(Setting(folder=tmp_path, train_pairs=500), *files)


def test_ratios_divide_contenders_by_this_project() -> None:
    seconds = {"this project, fp32": 22.0, "this project, bf16": 10.0, "bare loop, fp32": 20.0}
    seconds |= {"transformers, defaults": 29.0}
    rows = {name: {"s per trial": s, "padding": 0.02, "s between trials": 0.25} for name, s in seconds.items()}
    found = {ratio.name: ratio for ratio in ratios(rows)}
    assert found["trial ÷ bare loop, fp32"].value == pytest.approx(1.1)
    defaults = found["transformers, defaults ÷ trial, bf16"]
    assert defaults.value == pytest.approx(2.9)
    assert (defaults.target, defaults.met) == ("at least 3", False)
    assert "trial ÷ bare loop, bf16" not in found
    assert (found["share of padding"].value, found["share of padding"].met) == (0.02, True)


def test_figures_are_shown_with_their_targets() -> None:
    rows = {"one": {"s": 1234.56, "GB": 0.0123}, "two": {"s": 1.5, "GB": math.nan}}
    figures = Figures(rows, [Ratio("two to one", 0.9, most=1.0), Ratio("one to two", 1.6, most=1.5)], "a remark")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(figures.tables("what"))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines[:3] == [["what", "s", "GB"], ["one", "1,235", "0.012"], ["two", "1.50", "-"]]
    assert lines[4:6] == [
        ["two", "to", "one", "0.900", "at", "most", "1"],
        ["one", "to", "two", "1.60", "at", "most", "1.5", "missed"],
    ]
    kept = figures.as_dict()
    assert kept["ratios"]["one to two"] == {"value": 1.6, "target": "at most 1.5", "met": False}
    assert (kept["figures"]["one"], kept["remark"]) == (rows["one"], "a remark")


@pytest.mark.usefixtures("tracking_uri", "storage_url")
def test_copied_trials_are_complete_in_both_databases(tmp_path: Path) -> None:
    study = DemoStudy(tmp_path, tmp_path)
    _finished_trial(study)
    copy_trials(study, 30)
    trials = optuna.load_study(study_name=study.name, storage=study.storage).get_trials()
    tracker = Tracker(study.tracking_uri)
    runs = {run.run_id: run for run in tracker.runs(str(tracker.find_experiment(f"evidence-{study.name}")))}
    assert ([trial.number for trial in trials], len(runs)) == (list(range(30)), 30)
    assert len({trial.user_attrs[TrialKey.RUN_ID] for trial in trials}) == 30
    for trial in trials[1:]:
        run = runs[trial.user_attrs[TrialKey.RUN_ID]]
        assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 1.0, {0: 0.0})
        assert (run.tags["optuna_trial"], run.status) == (str(trial.number), "FINISHED")
        assert (run.params, run.metrics) == ({"lr": "0.5"}, {"val_metric": 0.5})
        assert (study.trials / f"trial_{trial.number}" / "config.yaml").is_file()
    assert len({trial.params["lr"] for trial in trials}) > 20
    assert all(0.1 <= trial.params["lr"] <= 1.0 for trial in trials)


def _finished_trial(demo: DemoStudy) -> None:
    tracker = Tracker(demo.tracking_uri)
    run_id = tracker.start_run(tracker.experiment(f"evidence-{demo.name}"), "trial_0", {"optuna_trial": "0"})
    tracker.log_params(run_id, {"lr": 0.5})
    tracker.log_metrics(run_id, {"val_metric": 0.5}, step=0, time_ms=1)
    tracker.set_status(run_id, "FINISHED", {})
    study = optuna.create_study(study_name=demo.name, storage=demo.storage, direction="maximize")
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 1.0)})
    trial.report(0.5, 0)
    trial.set_user_attr(TrialKey.RUN_ID, run_id)
    study.tell(trial, 0.5)
    (demo.trials / "trial_0").mkdir(parents=True)
    (demo.trials / "trial_0" / "config.yaml").touch()


def test_gap_between_trials_is_computed_from_runs() -> None:
    infos = [SimpleNamespace(start_time=start, end_time=end) for start, end in ((0, 5000), (5200, 9000), (9100, 9500))]
    runs = [SimpleNamespace(info=info, data=SimpleNamespace(metrics={"startup_s": 0.1})) for info in infos]
    assert between(runs) == pytest.approx([0.3, 0.2])  # type: ignore[arg-type]


def test_gpu_plan_uses_valid_flags_of_tune() -> None:
    ways = plan()
    assert len(ways) == 6
    for name, flags in ways.items():
        config = ["--model=CriteriaAgent", "--model.name=x", "--data=CriteriaDataModule", "--data.posts=x"]
        cli = AgentCLI([*config, *flags], instantiate=False, study=StudySettings)
        assert cli.config.study.workers == cli.config.study.per_device == int(name.split()[0])
        assert cli.values["model"]["init_args"]["compile"] is name.endswith("compiled")


@pytest.mark.skipif(torch.cuda.is_available(), reason="would run the benchmark")
def test_gpu_part_prints_commands_without_gpu(tmp_path: Path) -> None:
    figures = gpu(tmp_path, tmp_path, None)
    assert not figures.rows
    assert "--study.workers=4 --study.per_device=4" in figures.remark


def test_machine_is_described() -> None:
    named = machine()
    assert named["torch"] == torch.__version__
    assert named["processor"].endswith("cores")


def test_memory_includes_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "_EVERY_S", 0.02)
    child = "import sys; block = b'x' * (50 << 20); print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # the child has allocated its memory
        with PeakMemory(process.pid) as peak:
            while not peak.mib > 50:
                assert process.poll() is None
                time.sleep(0.01)
        process.stdin.close()
    assert 50 < peak.mib < 200
