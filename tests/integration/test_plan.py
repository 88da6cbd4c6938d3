"""The plan's usage example, word for word, and every line of its checklist and of its access patterns."""

import json
from pathlib import Path

import mlflow
import optuna
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.data.posts import read_posts
from tests.project_sandbox import ProjectSandbox

EXAMPLE = """python scripts/tune_max.py \
    --agent evidence \
    --study aug-evidence-mlflow-test \
    --n-trials 10 \
    --parallel 1 \
    --outdir outputs"""
STUDY = "aug-evidence-mlflow-test"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ProjectSandbox:
    place = ProjectSandbox(tmp_path_factory.mktemp("plan"), posts=24)
    place.shown = place.run(EXAMPLE)  # type: ignore[attr-defined]
    return place


@pytest.fixture
def client(project: ProjectSandbox, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(project.folder)
    # MLflow keeps one pool of connections per URL: a relative one would stay connected to this file in later tests.
    mlflow.set_tracking_uri(tracking_uri := f"sqlite:///{project.folder / 'mlflow.db'}")
    return MlflowClient(tracking_uri)


@pytest.fixture
def trials(client: MlflowClient) -> list[FrozenTrial]:
    # The plan's "Access patterns", during the search.
    study = optuna.load_study(study_name=STUDY, storage="sqlite:///_optuna/dataaug.db")
    assert study.best_value > 0
    return study.trials


@pytest.fixture
def runs(client: MlflowClient) -> dict[int, Run]:
    experiment = client.get_experiment_by_name(f"evidence-{STUDY}")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {int(run.data.tags["optuna_trial"]): run for run in found}


def test_every_trial_has_one_run_of_its_name_and_state(trials: list[FrozenTrial], runs: dict[int, Run]) -> None:
    statuses = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}
    assert len(trials) == len(runs) == 10
    for trial in trials:
        run = runs[trial.number]
        assert run.info.run_name == f"trial_{trial.number}"
        assert run.info.status == statuses[trial.state]
        assert run.data.tags["optuna_study"] == STUDY
        assert run.data.tags["agent"] == "evidence"
        assert run.data.tags["optuna_state"] == trial.state.name


def test_hyperparameters_are_logged_under_their_names(trials: list[FrozenTrial], runs: dict[int, Run]) -> None:
    for trial in trials:
        logged = runs[trial.number].data.params
        assert {"aug.enabled", "model.name", "model.optim.lr"} <= set(trial.params)
        assert {name: logged[name] for name in trial.params} == {name: str(v) for name, v in trial.params.items()}
        assert ("aug.p_apply" in trial.params) == trial.params["aug.enabled"]


def test_every_epoch_is_logged_in_both(client: MlflowClient, trials: list[FrozenTrial], runs: dict[int, Run]) -> None:
    for trial in trials:
        for metric in ("val_metric", "val_loss", "epoch"):
            points = client.get_metric_history(runs[trial.number].info.run_id, metric)
            assert [point.step for point in points] == list(trial.intermediate_values), metric
        values = [p.value for p in client.get_metric_history(runs[trial.number].info.run_id, "val_metric")]
        assert values == pytest.approx(list(trial.intermediate_values.values()))


def test_final_metrics_and_config_are_logged(
    client: MlflowClient, runs: dict[int, Run], trials: list[FrozenTrial]
) -> None:
    for trial in trials:
        run = runs[trial.number]
        assert run.data.metrics["runtime_s"] > 0
        config = json.loads(Path(client.download_artifacts(run.info.run_id, "config.json")).read_text(encoding="utf-8"))
        assert config["model"]["init_args"]["optim"]["lr"] == trial.params["model.optim.lr"]
        if trial.state == TrialState.COMPLETE:
            assert run.data.metrics["final_metric"] == pytest.approx(trial.value)
        else:
            assert run.data.tags["pruned_at_epoch"] == str(max(trial.intermediate_values))


def test_the_best_is_registered_and_gives_what_its_trial_gave(
    project: ProjectSandbox, client: MlflowClient, trials: list[FrozenTrial]
) -> None:
    best = max((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.value or 0.0)
    version = client.get_model_version_by_alias("evidence-best-model", "production")
    assert {key: version.tags[key] for key in ("optuna_trial", "value", "study")} == {
        "optuna_trial": str(best.number),
        "value": str(best.value),
        "study": STUDY,
    }
    folder = Path(f"outputs/{STUDY}/trial_{best.number}")
    encoder = project.encoder(best.params["model.name"])
    cli = AgentCLI(["--config", str(folder / "config.yaml"), "--model.name", encoder], trainer_kwargs={"logger": False})
    weights = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)
    cli.model.load_state_dict(weights["state_dict"])
    cli.model.eval()
    cli.datamodule.setup("validate")
    batch = next(iter(cli.datamodule.val_dataloader()))
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch]
    with torch.no_grad():
        wanted = cli.model.network(*(batch[name] for name in names))
        for uri in ("models:/evidence-best-model@production", "models:/evidence-best-model/production"):
            given = mlflow.pytorch.load_model(uri)(*(batch[name] for name in names))
            torch.testing.assert_close(given, wanted, atol=1e-4, rtol=0)


def test_the_registered_model_answers_raw_text(client: MlflowClient) -> None:
    model = mlflow.pyfunc.load_model("models:/evidence-best-model@production")
    post = "It rained. I cannot sleep at night."
    answer = model.predict(pd.DataFrame({"criterion": ["SLEEP_ISSUES"], "post": [post]})).iloc[0]
    assert answer["null"] or answer["text"] == post[answer["start"] : answer["end"]]


def test_no_text_of_a_post_left_the_data_folder(project: ProjectSandbox, client: MlflowClient) -> None:
    del client
    posts = read_posts(project.folder / "data/redsm5/posts.csv").values()
    sentences = {s.strip() for post in posts for s in post.split(".") if len(s.strip()) > 25}
    kept = [
        p for folder in ("outputs", "mlruns", "_optuna") for p in (project.folder / folder).rglob("*") if p.is_file()
    ]
    kept += [project.folder / "mlflow.db"]
    # A vocabulary holds single words, and the weights are numbers.
    for path in kept:
        content = path.read_bytes().decode("utf-8", errors="ignore")
        assert not [s for s in sentences if s in content], path.name
    assert not [s for s in sentences if s in project.shown]  # type: ignore[attr-defined]
