"""Soups and ensembles of whole refits, with real processes, databases and models."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never, cast

import mlflow
import optuna
import pandas as pd
import pytest
import torch
import yaml
from optuna.trial import TrialState
from torch import Tensor

from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.refit import combined_models
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.trainer import rebuild_trial
from tests.foreign import ForeignModule
from tests.refit.conftest import refit, register
from tests.study_sandbox import StudySandbox
from tests.tiny import CRITERIA, LONG_POST

Captured = pytest.CaptureFixture[str]
AGENTS = ["criteria", "joint"]
POSTS = [LONG_POST, "i am so tired today", "no sleep and the dog is fine"]


def _folder(sandbox: StudySandbox, agent: str, part: str) -> TrialFolder:
    return TrialFolder(Path(sandbox.outdir, f"{agent}-1-refit", part))


def _study(sandbox: StudySandbox, agent: str) -> optuna.Study:
    return optuna.load_study(study_name=f"{agent}-1-refit", storage=sandbox.storage)


def _entry(sandbox: StudySandbox, agent: str, kind: str) -> dict[str, Any]:
    entry: dict[str, Any] = _study(sandbox, agent).user_attrs["refit_models"][kind]
    return entry


def _by_score(sandbox: StudySandbox, agent: str) -> list[tuple[int, TrialFolder, float]]:
    """Return seed, folder and score of each trial of a refit, the best first."""
    trials = sorted(_study(sandbox, agent).trials, key=lambda trial: (-float(trial.value or 0.0), trial.number))
    return [
        (trial.params["seed_everything"], _folder(sandbox, agent, f"trial_{trial.number}"), float(trial.value or 0.0))
        for trial in trials
    ]


def _weights(folder: TrialFolder) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(folder.best, weights_only=True)["state_dict"]
    return weights


def _scored(folder: TrialFolder, weights: dict[str, Tensor]) -> AgentCLI:
    """Validate weights with the config of a folder, as it is done outside of this package."""
    cli = rebuild_trial(folder)
    cli.model.load_state_dict(weights)
    cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    return cli


def _runs(sandbox: StudySandbox, agent: str) -> dict[str, Any]:
    experiment = sandbox.client.get_experiment_by_name(f"{agent}-{agent}-1-refit")
    assert experiment is not None
    return {str(run.info.run_name): run for run in sandbox.client.search_runs([experiment.experiment_id])}


def _versions(sandbox: StudySandbox, name: str) -> list[Any]:
    found = sandbox.client.search_model_versions(f"name = '{name}-best-model'")
    return sorted(found, key=lambda version: int(version.version))


def _combined_runs(sandbox: StudySandbox, agent: str) -> list[Any]:
    """Return the runs of soups and ensembles, including those in the trash."""
    experiment = sandbox.client.get_experiment_by_name(f"{agent}-{agent}-1-refit")
    assert experiment is not None
    runs = sandbox.client.search_runs([experiment.experiment_id], run_view_type=mlflow.entities.ViewType.ALL)
    return [run for run in runs if "combined" in run.data.tags]


def _models(sandbox: StudySandbox, agent: str) -> list[Any]:
    """Return the logged models of these runs."""
    ids = {run.info.run_id: run.info.experiment_id for run in _combined_runs(sandbox, agent)}
    models = sandbox.client.search_logged_models(list(set(ids.values()))) if ids else []
    return [model for model in models if model.source_run_id in ids]


@pytest.fixture
def clean(refitted: StudySandbox) -> Iterator[StudySandbox]:
    """Return the refits without combined models, versions and changed weights, and clean up what a test has made."""
    saved = refitted.folder / "saved"
    shutil.copytree(refitted.outdir, saved)
    yield refitted
    shutil.rmtree(refitted.outdir)
    saved.rename(refitted.outdir)
    for agent in AGENTS:
        _study(refitted, agent).set_user_attr("refit_models", {})
        for version in _versions(refitted, agent):
            refitted.client.delete_model_version(version.name, version.version)
        for model in _models(refitted, agent):
            refitted.client.delete_logged_model(model.model_id)
        for run in _combined_runs(refitted, agent):
            if run.info.lifecycle_stage == "active":
                refitted.client.delete_run(run.info.run_id)


@pytest.mark.parametrize("agent", AGENTS)
def test_soup_is_scored_proven_and_promoted(clean: StudySandbox, agent: str, capsys: Captured) -> None:
    assert register(clean, f"{agent}-1", "--soup") == 0
    first, last = capsys.readouterr().out.splitlines()
    entry, ranked = _entry(clean, agent, "soup"), _by_score(clean, agent)
    assert entry["offered"] == [seed for seed, _, _ in ranked]
    assert [step["seed"] for step in entry["steps"]] == entry["offered"]
    assert entry["steps"][0]["score"] == pytest.approx(ranked[0][2])
    assert entry["seeds"] == [step["seed"] for step in entry["steps"] if step["added"]]
    assert entry["value"] == [step["score"] for step in entry["steps"] if step["added"]][-1]
    assert first.startswith("soup of seed")
    assert f"of trial 0: val_metric {entry['value']:.4f} (seed {ranked[0][0]} alone " in first
    assert re.fullmatch(
        rf"registered {agent}-best-model version \d+, verified; production: models:/{agent}-best-model@production.*",
        last,
    )

    members = [_weights(folder) for seed, folder, _ in ranked if seed in entry["seeds"]]
    soup = _folder(clean, agent, "soup")
    weights = _weights(soup)
    for name, value in weights.items():
        if value.is_floating_point() and name != "null_threshold":
            torch.testing.assert_close(value, torch.stack([each[name] for each in members]).mean(dim=0))
    cli = _scored(soup, weights)
    assert float(cli.trainer.callback_metrics["val_metric"]) == pytest.approx(entry["value"])
    met = cli.model.val_scores[cli.model.MET_SCORES]
    assert cli.model.decision == met.fit() != type(cli.model.decision)()
    if agent == "joint":
        spans = cli.model.val_scores[cli.model.SPAN_SCORES]
        assert float(cli.model.null_threshold) == pytest.approx(spans.best_threshold())
    _assert_recorded(clean, agent, "soup", entry)
    _assert_served_as(clean, agent, cli)


def _assert_recorded(sandbox: StudySandbox, agent: str, kind: str, entry: dict[str, Any]) -> None:
    (version,) = _versions(sandbox, agent)
    assert {key: version.tags[key] for key in ("combined", "study", "trial", "seeds", "value")} == {
        "combined": kind,
        "study": f"{agent}-1-refit",
        "trial": "0",
        "seeds": ", ".join(map(str, entry["seeds"])),
        "value": repr(entry["value"]),
    }
    assert json.loads(version.tags["steps"]) == entry["steps"]
    runs = _runs(sandbox, agent)
    run = runs[kind]
    assert (run.info.run_id, run.info.status) == (version.run_id, "FINISHED")
    assert run.data.tags["mlflow.parentRunId"] == runs["refit"].info.run_id
    assert run.data.metrics["val_metric"] == pytest.approx(entry["value"])


def _assert_served_as(sandbox: StudySandbox, agent: str, cli: AgentCLI) -> None:
    """Compare the answers of the registered model with those of the agent."""
    mlflow.set_tracking_uri(sandbox.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{agent}-best-model@production")
    dataset = cli.datamodule.val_dataloader().dataset
    batch = dataset[0]
    expected = cli.model.eval().predict_step(batch)
    rows = pd.DataFrame(
        {"criterion": batch["criteria"], "post": [cli.datamodule.corpus.posts[each] for each in batch["post_ids"]]}
    )
    found = model.predict(rows).to_dict("records")
    key, answer = ("probability", "met") if agent == "criteria" else ("score", "null")
    assert len(found) > 1
    for row, wanted in zip(found, expected, strict=True):
        assert row[key] == pytest.approx(wanted[key], abs=1e-4)
        assert row[answer] == wanted[answer]


@pytest.mark.parametrize("agent", AGENTS)
def test_ensemble_answers_with_the_mean_logits_of_all_seeds(clean: StudySandbox, agent: str, capsys: Captured) -> None:
    assert register(clean, f"{agent}-1", "--ensemble") == 0
    assert capsys.readouterr().out.startswith("ensemble of seeds ")
    entry, ranked = _entry(clean, agent, "ensemble"), _by_score(clean, agent)
    assert entry["seeds"] == entry["offered"] == [seed for seed, _, _ in ranked]
    assert entry["steps"] == []
    mlflow.set_tracking_uri(clean.tracking_uri)
    served = mlflow.pytorch.load_model(f"models:/{agent}-best-model@production")
    cli = rebuild_trial(_folder(clean, agent, "ensemble"))
    agent_module: TextAgent = cli.model.eval()
    inputs = cast(TextNetwork, agent_module.network).example_inputs(types=True)
    each = []
    with torch.no_grad():
        for _, folder, _ in ranked:
            agent_module.load_state_dict(_weights(folder))
            each.append(agent_module.network(*inputs))
        torch.testing.assert_close(served(*inputs), torch.stack(each).mean(dim=0), atol=1e-5, rtol=1e-4)
    _assert_recorded(clean, agent, "ensemble", entry)
    answers = mlflow.pyfunc.load_model(f"models:/{agent}-best-model@production").predict(
        pd.DataFrame({"criterion": list(CRITERIA) * len(POSTS), "post": sorted(POSTS * len(CRITERIA))})
    )
    assert list(answers["problem"].unique()) == [""]
    size = sum(path.stat().st_size for path in Path(_source(clean, agent)).rglob("model.pt2"))
    assert size > 2 * sum(value.numel() * 4 for name, value in _weights(ranked[0][1]).items() if "network" in name)


def _source(sandbox: StudySandbox, agent: str) -> str:
    return str(_versions(sandbox, agent)[0].source).removeprefix("file://")


def test_second_call_makes_no_second_model(clean: StudySandbox, capsys: Captured) -> None:
    assert register(clean, "criteria-1", "--soup") == 0
    shown, entry = capsys.readouterr().out, _entry(clean, "criteria", "soup")
    for folder in [folder for _, folder, _ in _by_score(clean, "criteria")]:
        folder.best.unlink()  # the model is in MLflow
    assert register(clean, "criteria-1-refit", "--soup") == 0  # the refit may be named, too
    assert capsys.readouterr().out == shown
    assert _entry(clean, "criteria", "soup") == entry
    assert len(_versions(clean, "criteria")) == 1
    assert sum(name == "soup" for name in _runs(clean, "criteria")) == 1


def test_equal_seeds_give_the_model_and_a_bad_seed_is_left_out(clean: StudySandbox) -> None:
    (_, best, value), (_, second, _), (bad, third, _) = _by_score(clean, "joint")
    shutil.copy(best.best, second.best)
    checkpoint = torch.load(third.best, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for name, weights in checkpoint["state_dict"].items():
        if weights.is_floating_point() and "network" in name:
            checkpoint["state_dict"][name] = 100 * torch.randn(weights.shape, generator=generator)
    torch.save(checkpoint, third.best)
    assert register(clean, "joint-1", "--soup") == 0
    entry = _entry(clean, "joint", "soup")
    assert entry["seeds"] == entry["offered"][:2]
    assert bad not in entry["seeds"]
    assert entry["steps"][2]["score"] < value
    weights = _weights(_folder(clean, "joint", "soup"))
    assert all(torch.equal(each, weights[name]) for name, each in _weights(best).items())
    assert entry["value"] == pytest.approx(value)


def test_status_and_refit_name_the_registered_models(clean: StudySandbox, capsys: Captured) -> None:
    assert refit(clean, "criteria-1", "--seeds", "3", "--no-test") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("kept the weights")]
    size = sum(folder.best.stat().st_size for _, folder, _ in _by_score(clean, "criteria")) / 1e6
    assert line == (
        f"kept the weights of 3 seeds of the winner, {size:.1f} MB; `refit criteria-1 --keep 1` deletes them; to "
        "average them: lightning-hpo register --study criteria-1 --soup"
    )
    assert register(clean, "criteria-1", "--soup") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert refit(clean, "criteria-1", "--seeds", "3", "--no-test") == 0
    assert line in capsys.readouterr().out.splitlines()
    path = Path(clean.outdir, "criteria-1-refit/refit.json")
    entry = _entry(clean, "criteria", "soup")
    assert json.loads(path.read_text())["models"]["soup"] == entry
    from lightning_hpo.cli import main

    assert main(["status", "--study", "criteria-1-refit", "--storage", clean.storage, "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models == {"soup": {"value": entry["value"], "seeds": entry["seeds"]}}
    assert main(["status", "--study", "criteria-1-refit", "--storage", clean.storage]) == 0
    assert re.search(rf"soup +{entry['value']:.4f}, seeds {entry['seeds'][0]}", capsys.readouterr().out)


def test_new_seed_is_tried_for_a_new_soup(clean: StudySandbox) -> None:
    (_, best, _), *_ = _by_score(clean, "criteria")
    kept = best.best.read_bytes()
    best.best.unlink()
    assert register(clean, "criteria-1", "--soup") == 0
    assert len(_entry(clean, "criteria", "soup")["offered"]) == 2
    best.best.write_bytes(kept)
    assert register(clean, "criteria-1", "--soup", "--promote") == 0
    assert len(_entry(clean, "criteria", "soup")["offered"]) == 3
    first, second = _versions(clean, "criteria")
    assert first.run_id != second.run_id
    assert second.run_id == _entry(clean, "criteria", "soup")["run_id"]


def _stop(*arguments: Any, **options: Any) -> Never:
    raise KeyboardInterrupt


def test_interrupted_call_leaves_nothing(clean: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for attribute in ("verify", "_finite"):
        with monkeypatch.context() as patch:
            patch.setattr(combined_models, attribute, _stop)
            assert register(clean, "criteria-1", "--soup") == 130
        assert "soup" not in _runs(clean, "criteria")
        assert _versions(clean, "criteria") == _models(clean, "criteria") == []
        assert _study(clean, "criteria").user_attrs.get("refit_models", {}) == {}
    assert register(clean, "criteria-1", "--soup") == 0
    assert len(_versions(clean, "criteria")) == 1


def test_call_after_a_kill_deletes_what_was_left(clean: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(combined_models, "verify", _stop)
        patch.setattr(combined_models._Job, "_discard", lambda *arguments: None)  # a killed process does nothing
        assert register(clean, "criteria-1", "--soup") == 130
    assert _runs(clean, "criteria")["soup"].info.status == "RUNNING"
    assert len(_models(clean, "criteria")) == 1
    assert register(clean, "criteria-1", "--soup") == 0
    assert len(_models(clean, "criteria")) == 1
    assert len(_versions(clean, "criteria")) == 1


def test_call_after_a_kill_registers_the_verified_model(clean: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(combined_models, "register_verified", _stop)
        assert register(clean, "criteria-1", "--soup") == 130
    assert _versions(clean, "criteria") == []
    entry = _entry(clean, "criteria", "soup")
    with monkeypatch.context() as patch:
        patch.setattr(combined_models, "combine", None)
        assert register(clean, "criteria-1", "--soup") == 0
    (version,) = _versions(clean, "criteria")
    assert (version.run_id, _runs(clean, "criteria")["soup"].info.status) == (entry["run_id"], "FINISHED")


def test_failed_verification_registers_nothing(clean: StudySandbox, capsys: Captured) -> None:
    assert register(clean, "criteria-1", "--soup") == 0
    version = _versions(clean, "criteria")[0]
    clean.client.delete_model_version(version.name, version.version)
    (file,) = Path(str(version.source).removeprefix("file://")).rglob("model.pt2")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0b0100_0000
    file.write_bytes(content)
    capsys.readouterr()
    assert register(clean, "criteria-1", "--soup") == 1
    assert "failed, so no alias is moved: data/model.pt2 is not as it was logged" in capsys.readouterr().err
    assert _versions(clean, "criteria") == []


@pytest.mark.parametrize("flag", ["--soup", "--ensemble"])
def test_unusable_refit_is_one_line(
    clean: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: Captured, flag: str
) -> None:
    def refused(line: str, code: int = 2) -> None:
        assert register(clean, "criteria-1", flag) == code
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: {'' if 'Optuna has' in line else f'{flag}: '}")
        assert line in error
        assert _versions(clean, "criteria") == []

    (_, first, _), (_, second, _), (_, third, _) = _by_score(clean, "criteria")
    posts = clean.folder / "posts.csv"
    before = posts.read_text()
    posts.write_text(before + "p99,the dog is fine\n")
    refused("the data have changed since the seeds were trained: their fingerprint was", 1)
    posts.write_text(before)
    config = yaml.safe_load(second.config.read_text())
    config["model"]["init_args"]["dropout"] = 0.5
    kept = second.config.read_text()
    second.config.write_text(yaml.safe_dump(config))
    refused(
        f"{second.config}: it is not the config that trial {second.number} was trained with, whose digest Optuna has"
    )
    with monkeypatch.context() as patch:  # as of version 0.1.0, which has stored no digests
        patch.setattr("lightning_hpo.trial.config.check_config", lambda *_: None)
        refused("differ in --model.dropout; only models of the same config can be combined")
    second.config.write_text(kept)
    content = second.best.read_bytes()
    second.best.write_bytes(content[: len(content) // 2])
    refused(f"{second.best}: the checkpoint is damaged", 1)
    second.best.unlink()
    third.best.unlink()
    refused(
        "criteria-1-refit has kept the weights of 1 of the 3 seeds of its winner, trial 0, and two are needed; train "
        "more seeds: lightning-hpo refit criteria-1 --trials 1 --seeds 4"
    )
    first.best.unlink()
    refused("--seeds 5")
    assert "soup" not in _runs(clean, "criteria")


def _refused(sandbox: StudySandbox, capsys: Captured, *flags: str, code: int = 2) -> str:
    """Return the error of a call that registers nothing."""
    capsys.readouterr()
    assert register(sandbox, "first", *flags) == code
    assert _versions(sandbox, "foreignmodule") == []
    return capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")


def test_soup_of_another_module(sandbox: StudySandbox, capsys: Captured) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    command = "lightning-hpo refit first"
    line = f"--soup: first has no refit, which trains the seeds; run: {command}"
    assert _refused(sandbox, capsys, "--soup") == line
    assert refit(sandbox, "first", "--seeds", "1", "--no-test") == 0
    line = f"first-refit has 1 seed of its winner, trial 0, and two are needed; train more seeds: {command} --trials 1"
    assert _refused(sandbox, capsys, "--ensemble") == f"--ensemble: {line} --seeds 2"
    assert "argument --soup: not allowed with argument --trial" in _refused(sandbox, capsys, "--trial", "0", "--soup")

    assert refit(sandbox, "first", "--seeds", "3", "--no-test") == 0
    line = "ForeignModule has no ensemble: only agents of this package have logits that can be averaged; use --soup"
    assert _refused(sandbox, capsys, "--ensemble", code=1) == f"--ensemble: first-refit: {line}"
    study = optuna.load_study(study_name="first-refit", storage=sandbox.storage)
    study.set_user_attr("n_trials", 5)
    line = "--soup: first-refit has finished 3 of 5 trials; finish it: lightning-hpo refit first --trials 1 --seeds 3"
    assert _refused(sandbox, capsys, "--soup") == line
    study.set_user_attr("n_trials", 3)
    study.set_user_attr("refit_of_id", "of another study")
    assert "first has no refit" in _refused(sandbox, capsys, "--soup")
    searched = optuna.load_study(study_name="first", storage=sandbox.storage)
    study.set_user_attr("refit_of_id", searched.user_attrs["study_id"])

    assert register(sandbox, "first", "--soup") == 0
    assert "registered foreignmodule-best-model version 1, verified; production: " in capsys.readouterr().out
    mlflow.set_tracking_uri(sandbox.tracking_uri)
    served = mlflow.pytorch.load_model("models:/foreignmodule-best-model@production")
    weights = _weights(TrialFolder(Path(sandbox.outdir, "first-refit/soup")))
    module = ForeignModule(hidden=len(weights["layers.0.weight"]))
    module.load_state_dict(weights)
    x = torch.randn(5, 2)
    torch.testing.assert_close(served(x), module(x))


def test_seeds_that_failed_and_batch_normalization_are_one_line(sandbox: StudySandbox, capsys: Captured) -> None:
    normalized = {
        "model": {"class_path": "tests.foreign.NormalizedModule"},
        "search_space": {"model.lr": {"choices": [0.1]}},
    }
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false", config=normalized) == 0
    assert refit(sandbox, "first", "--seeds", "2", "--no-test") == 0
    assert _refused(sandbox, capsys, "--soup", code=1) == (
        "--soup: first-refit: NormalizedModule has no soup: its layer layers.1 keeps statistics of its inputs (batch "
        "normalization), which do not fit averaged weights"
    )
    study = optuna.load_study(study_name="first-refit", storage=sandbox.storage)
    study.set_user_attr("n_trials", 4)
    for seed in (20, 21):
        params = {"trial": 0, "seed_everything": seed}
        kinds: Any = {name: optuna.distributions.IntDistribution(0, 99) for name in params}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, params=params, distributions=kinds))
    Path(sandbox.outdir, "first-refit/trial_0/best.ckpt").unlink()
    assert _refused(sandbox, capsys, "--soup").endswith("--trials 1 --seeds 5")
