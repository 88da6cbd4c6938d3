"""Whole refits, with real processes and databases."""

import json
import signal
import statistics
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.cli import main
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.demo_encoder import write_encoder
from tests.study_sandbox import StudySandbox, wait_for
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]
TESTED = {"model": {"class_path": "tests.foreign.TestedModule"}}
DATA = {"posts": "posts.csv", "annotations": "annotations.csv", "criteria": "criteria.yaml", "max_length": 128}
AGENT = {
    "model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": {"name": "encoder"}},
    "data": {"class_path": "lightning_hpo.data.CriteriaDataModule", "init_args": {**DATA, "stride": 32}},
    "search_space": {"model.optim.lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}},
}


def _refit(sandbox: StudySandbox, study: str, *flags: str) -> int:
    return main(["refit", study, "--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri, *flags])


def _search(sandbox: StudySandbox, study: str, *flags: str, config: dict[str, Any] | None = None) -> list[int]:
    """Tune for the lowest loss, and return the numbers of the trials, the best first."""
    aim = ("--study.monitor", "val_loss", "--study.mode", "min")
    flags = ("--study.register", "false", "--study.pruner", "NopPruner", *aim, *flags)
    assert sandbox.tune(study, *flags, config=TESTED if config is None else config) == 0
    return [trial.number for trial in sorted(sandbox.trials(study), key=lambda trial: float(trial.value or 0.0))]


def _runs(sandbox: StudySandbox, experiment: str) -> dict[str, Run]:
    found = sandbox.client.get_experiment_by_name(experiment)
    assert found is not None
    return {str(run.info.run_name): run for run in sandbox.client.search_runs([found.experiment_id])}


def test_refit_scores_seeds_and_the_test_split_and_records_one_parent_run(
    sandbox: StudySandbox, capsys: Captured
) -> None:
    DemoCorpus(40, 17).write(sandbox.folder)
    write_encoder(sandbox.folder / "encoder", 17, steps=1)
    best, second = _search(sandbox, "first", "--study.n_trials", "2", "--trainer.max_epochs", "2", config=AGENT)
    capsys.readouterr()
    assert _refit(sandbox, "first", "--trials", "2", "--seeds", "2", "--workers", "2") == 0
    shown = capsys.readouterr().out

    trials = sandbox.trials("first-refit")
    assert [trial.params for trial in trials] == [
        {"trial": number, "seed_everything": seed} for seed in (18, 19) for number in (best, second)
    ]
    folder = sandbox.folder / "outputs/first-refit"
    _assert_only_the_seed_differs(folder, trials, {trial.number: trial for trial in sandbox.trials("first")})

    figures = json.loads((folder / "refit.json").read_text())
    for candidate in figures["candidates"]:
        own = [float(trial.value or 0.0) for trial in trials if trial.params["trial"] == candidate["trial"]]
        assert candidate["mean"] == pytest.approx(statistics.fmean(own))
        assert candidate["std"] == pytest.approx(statistics.stdev(own))
        assert candidate["gap"] == pytest.approx(candidate["searched"] - statistics.fmean(own))
    assert figures["winner"] == figures["candidates"][0]["trial"]
    assert f"winner: trial {figures['winner']} of first, mean {figures['candidates'][0]['mean']:.4f}" in shown

    chosen = trials[figures["test"]["number"]]
    assert chosen.params["trial"] == figures["winner"]
    winners = {trial.number for trial in trials if trial.params["trial"] == figures["winner"]}
    assert _with_weights(folder) == winners
    assert f"test split, scored once: test_loss {figures['test']['metrics']['test_loss']:.4f}" in shown
    assert set(figures["test"]["constant_answers"]) == {*("always met", "never met", "TF-IDF + logistic regression")}
    assert "baselines" not in shown  # they are scores in another metric
    _assert_one_parent_run(sandbox, figures)

    # A second call prints the same, trains nothing, and does not score the test split again.
    log = (folder / f"trial_{chosen.number}/test.log").stat().st_mtime_ns
    assert _refit(sandbox, "first", "--trials", "2", "--seeds", "2") == 0
    assert capsys.readouterr().out == shown
    assert (folder / f"trial_{chosen.number}/test.log").stat().st_mtime_ns == log
    assert len(sandbox.trials("first-refit")) == 4


def _with_weights(folder: Path) -> set[int]:
    return {int(path.parent.name.removeprefix("trial_")) for path in folder.glob("trial_*/best.ckpt")}


def _assert_only_the_seed_differs(folder: Path, trials: list[FrozenTrial], searched: dict[int, FrozenTrial]) -> None:
    for trial in trials:
        config = yaml.safe_load((folder / f"trial_{trial.number}/config.yaml").read_text())
        assert config["seed_everything"] == config["data"]["init_args"]["draw_seed"] == trial.params["seed_everything"]
        assert config["data"]["init_args"]["seed"] == 17
        lr = searched[trial.params["trial"]].params["model.optim.lr"]
        assert config["model"]["init_args"]["optim"]["lr"] == lr
    assert len({trial.value for trial in trials}) > 2  # the seeds change the scores
    candidates = json.loads((folder / "refit.json").read_text())["candidates"]
    assert all(candidate["searched"] == searched[candidate["trial"]].value for candidate in candidates)


def _assert_one_parent_run(sandbox: StudySandbox, figures: dict[str, Any]) -> None:
    runs = _runs(sandbox, "criteria-first-refit")
    parent = runs.pop("refit")
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert len(runs) == 4
    assert parent.data.metrics["test_metric"] == pytest.approx(figures["test"]["metrics"]["test_metric"])
    assert parent.data.metrics["winner_mean"] == pytest.approx(figures["candidates"][0]["mean"])


def test_stopped_refit_resumes_and_accepts_more_seeds(sandbox: StudySandbox, capsys: Captured) -> None:
    best, second = _search(sandbox, "first", "--study.n_trials", "2")

    def stop() -> None:
        wait_for(lambda: (sandbox.folder / "outputs/first-refit/trial_1/config.yaml").exists())
        signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert _refit(sandbox, "first", "--trials", "2", "--seeds", "3", "--no-test") == 128 + signal.SIGTERM
    thread.join()
    assert not (sandbox.folder / "outputs/first-refit/refit.json").exists()
    assert _refit(sandbox, "first", "--trials", "2", "--seeds", "3", "--no-test") == 0
    assert "test split: not used" in capsys.readouterr().out
    assert len(list((sandbox.folder / "outputs/first-refit").glob("trial_*/best.ckpt"))) == 6
    assert _refit(sandbox, "first", "--trials", "2", "--seeds", "4") == 0
    trials = sandbox.trials("first-refit")
    assert [(trial.params["trial"], trial.params["seed_everything"]) for trial in trials] == [
        (number, seed) for seed in (18, 19, 20, 21) for number in (best, second)
    ]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert "test split, scored once: test_loss" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        raise SystemExit(_refit(sandbox, "first", "--trials", "1"))
    assert "--trials: got 1; first-refit was started with 2" in capsys.readouterr().err


def test_refit_reports_failed_seeds_and_a_missing_test_step(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    _search(sandbox, "first", "--study.n_trials", "1", config={})
    path = sandbox.folder / "outputs/first/trial_0/config.yaml"
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "1") == 1
    output = capsys.readouterr()
    assert "winner: trial 0 of first" in output.out
    assert "trial 0 cannot be scored on the test split: No `test_step()` method defined" in output.err
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["diverges"] = True
    path.write_text(yaml.safe_dump(config))
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "2", "--no-test") == 2
    assert f"{path}: it is not the config that trial 0 was trained with" in capsys.readouterr().err
    monkeypatch.setattr("lightning_hpo.trial.config.check_config", lambda *_: None)
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "2", "--no-test") == 0
    assert "trial 0 failed with seed 19 (val_loss is nan at epoch 0)" in capsys.readouterr().out


def test_changed_config_of_a_seed_is_not_run_to_score_the_test_split(sandbox: StudySandbox, capsys: Captured) -> None:
    _search(sandbox, "first", "--study.n_trials", "1", config={})
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "1", "--no-test") == 0
    path = sandbox.folder / "outputs/first-refit/trial_0/config.yaml"
    path.write_text(path.read_text().replace("tests.foreign", "tests.no_such"))
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "1") == 2
    assert f"error: {path}: it is not the config that trial 0 was trained with" in capsys.readouterr().err


def test_refit_of_another_study_of_the_name_is_refused(sandbox: StudySandbox, capsys: Captured) -> None:
    _search(sandbox, "first", "--study.n_trials", "1", "--trainer.max_epochs", "1")
    _search(sandbox, "first-refit", "--study.n_trials", "1", "--trainer.max_epochs", "1")
    with unchanged(sandbox.folder):
        assert _refit(sandbox, "first", "--trials", "1") == 2
    assert "first-refit is a search, not the refit of first" in capsys.readouterr().err
    begun = optuna.load_study(study_name="first-refit", storage=sandbox.storage)
    for key, value in {"refit_of": "first", "refit_of_id": "of a deleted study", "refit_candidates": [0]}.items():
        begun.set_user_attr(key, value)
    with unchanged(sandbox.folder):
        assert _refit(sandbox, "first", "--trials", "1") == 2
    assert "first-refit: it is the refit of an earlier study with the name first" in capsys.readouterr().err


def test_printed_command_registers_the_tested_model(sandbox: StudySandbox, capsys: Captured) -> None:
    _search(sandbox, "first", "--study.n_trials", "1")
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "3") == 0
    command = capsys.readouterr().out.splitlines()[-1].partition("lightning-hpo ")[2].split()
    assert main([*command, "--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri]) == 0
    assert "registered testedmodule-best-model version 1, verified" in capsys.readouterr().out


def test_keep_limits_the_seeds_of_the_winner_that_keep_their_weights(sandbox: StudySandbox, capsys: Captured) -> None:
    _search(sandbox, "first", "--study.n_trials", "1")
    folder = sandbox.folder / "outputs/first-refit"
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "3", "--no-test", "--keep", "2") == 0
    first, second, _ = sorted(sandbox.trials("first-refit"), key=lambda trial: float(trial.value or 0.0))
    assert _with_weights(folder) == {first.number, second.number}
    assert (
        "kept the weights of 2 seeds of the winner, 0.0 MB; `refit first --keep 1` deletes" in capsys.readouterr().out
    )
    assert _refit(sandbox, "first", "--trials", "1", "--seeds", "3", "--keep", "1") == 0
    assert json.loads((folder / "refit.json").read_text())["test"]["number"] == second.number  # the median
    assert _with_weights(folder) == {first.number, second.number}


def test_trials_with_the_same_values_are_one_candidate(sandbox: StudySandbox, capsys: Captured) -> None:
    _search(sandbox, "first", "--study.n_trials", "1")
    study = optuna.load_study(study_name="first", storage=sandbox.storage)
    study.add_trial(study.trials[0])  # as an earlier version trained the same point twice
    assert _refit(sandbox, "first", "--trials", "2") == 2
    assert "--trials: got 2; first has only 1 complete trials with different values" in capsys.readouterr().err


def test_invalid_refit_is_refused_before_anything_is_written(sandbox: StudySandbox, capsys: Captured) -> None:
    _search(sandbox, "first", "--study.n_trials", "1")
    optuna.create_study(study_name="elsewhere", storage=sandbox.storage)
    config = sandbox.folder / "outputs/first/trial_0/config.yaml"
    for study, flags, line in (
        ("first", ("--trials", "2"), "--trials: got 2; first has only 1 complete"),
        ("first", ("--seeds", "0"), "--seeds: got 0; use 1 or more"),
        ("first", ("--keep", "0"), "--keep: got 0; use 1 or more"),
        ("first", ("--trial_timeout", "nan"), "--trial_timeout: got nan; use 60 seconds or more"),
        ("elsewhere", (), "elsewhere: the study was not created by `tune`"),
        ("second", (), "--study second: no such study"),
    ):
        with unchanged(sandbox.folder):
            assert _refit(sandbox, study, *flags) == 2
        assert line in capsys.readouterr().err
    for copy in sandbox.folder.rglob("config.yaml"):  # also the artifact of the run
        copy.unlink()
    with unchanged(sandbox.folder):
        assert _refit(sandbox, "first", "--trials", "1") == 2
    assert f"{config}: no such file, and the copy in MLflow run " in capsys.readouterr().err
    assert optuna.get_all_study_names(sandbox.storage) == ["first", "elsewhere"]
