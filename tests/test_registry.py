"""What `tune` and the plan's tests do not show of registering."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.demo_encoder import write_encoder
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.registry import ALIAS, register
from lightning_hpo.tracking import Tracker
from lightning_hpo.workers import Workers
from tests.home import Home


def _without_model(study: optuna.Study, storage: str) -> optuna.Study:
    """The study as it would be, had MLflow been away when the model was to be logged."""
    twin = optuna.create_study(study_name="twin", storage=storage, direction="maximize")
    for key, value in study.user_attrs.items():
        twin.set_user_attr(key, value)
    for trial in study.trials:
        trial.user_attrs.pop("mlflow_model_uri", None)
        twin.add_trial(trial)
    return twin


def test_a_model_that_could_not_be_logged_is_logged_now(home: Home) -> None:
    assert home.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    twin = _without_model(optuna.load_study(study_name="first", storage=home.storage), home.storage)
    tracker, workers = Tracker(home.tracking_uri), Workers(1)
    assert register(twin, tracker, workers).startswith("registered foreignmodule-best-model version 1, proven")
    models = len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")]))
    assert register(twin, tracker, workers).startswith("registered foreignmodule-best-model version 1, proven")
    assert len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")])) == models


def test_without_model_and_weights_there_is_nothing_to_register(home: Home) -> None:
    assert home.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    twin = _without_model(optuna.load_study(study_name="first", storage=home.storage), home.storage)
    Path(home.outdir, "first/trial_0/best.ckpt").unlink()
    with pytest.raises(LightningHpoError, match=r"^twin: trial 0 cannot be registered: it has no weights any more"):
        register(twin, Tracker(home.tracking_uri), Workers(1))


def test_any_complete_trial_that_kept_its_weights_can_be_registered(home: Home) -> None:
    flags = ("--study.n_trials", "3", "--study.keep", "2", "--study.register", "false", "--study.pruner", "NopPruner")
    assert home.tune("first", *flags) == 0
    study, tracker = optuna.load_study(study_name="first", storage=home.storage), Tracker(home.tracking_uri)
    ranked = sorted(study.trials, key=lambda trial: float(trial.value or 0.0), reverse=True)
    said = register(study, tracker, Workers(1), number=ranked[1].number)
    assert said.startswith("registered foreignmodule-best-model version 1, proven")
    version = tracker.client.get_model_version_by_alias("foreignmodule-best-model", ALIAS)
    assert version.tags["optuna_trial"] == str(ranked[1].number)
    with pytest.raises(LightningHpoError, match=r"cannot be registered: it has no weights any more; the best"):
        register(study, tracker, Workers(1), number=ranked[2].number)
    with pytest.raises(InputError, match=r"^--trial: first has no complete trial 7; `lightning-hpo status --study"):
        register(study, tracker, Workers(1), number=7)


def test_a_calibrated_model_is_proven_with_the_threshold_that_it_was_scored_with(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    DemoCorpus(40, 17).write(home.folder)
    write_encoder(home.folder / "encoder", 17, steps=1)
    decoding: Any = {"null_policy": "calibrated", "null_threshold": 50.0, "top_k": 2}
    model = {"name": "encoder", "decoding": decoding}
    data = {"posts": "posts.csv", "annotations": "annotations.csv", "criteria": "criteria.yaml", "max_length": 128}
    config = {
        "model": {"class_path": "lightning_hpo.agents.EvidenceAgent", "init_args": model},
        "data": {"class_path": "lightning_hpo.data.EvidenceDataModule", "init_args": {**data, "stride": 32}},
        "search_space": {"model.optim.lr": {"low": 1.0e-5, "high": 1.0e-4}},
    }
    assert home.tune("calibrated", "--study.n_trials", "1", "--trainer.max_epochs", "1", config=config) == 0
    assert "registered evidence-best-model version 1, proven" in capsys.readouterr().err
