from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from lightning_hpo.registry.promote import update_alias
from lightning_hpo.registry.register import register
from lightning_hpo.registry.scored_model import ScoredModel
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.tracker import Tracker
from tests.registry.conftest import copy_study, production
from tests.study_sandbox import StudySandbox
from tests.tracking.fake_server import PAGE, Reply, as_json, fake_server

Pair = tuple[optuna.Study, int, str]


@pytest.fixture(scope="module")
def pair(tiny: StudySandbox) -> Pair:
    """Register both trials, the best first. Return the number of the other one, and the line about it."""
    study, other = copy_study(tiny, "pair")
    tracker, workers = Tracker(tiny.tracking_uri), LocalWorkers(1)
    assert "version 1, verified; production: models:/pair-best-model@production" in register(study, tracker, workers)
    return study, other, register(study, tracker, workers, number=other)


def test_worse_model_is_not_promoted(tiny: StudySandbox, pair: Pair) -> None:
    _, other, line = pair
    assert "version 2, verified; production is not moved: version 1 scores 0." in line
    assert line.endswith(f"; to move it: lightning-hpo register --study pair --trial {other} --promote")
    assert production(tiny, "pair") == "1"


def test_alias_is_not_moved_on_request(tiny: StudySandbox, pair: Pair) -> None:
    study, other, _ = pair
    line = register(study, Tracker(tiny.tracking_uri), LocalWorkers(1), number=other, promote=False)
    assert line == "registered pair-best-model version 2, verified; production is not moved"
    assert production(tiny, "pair") == "1"


def test_model_with_other_data_is_not_promoted(tiny: StudySandbox, pair: Pair) -> None:
    study, other, _ = pair
    before = tiny.client.get_model_version("pair-best-model", "1").tags["data_fingerprint"]
    tiny.client.set_model_version_tag("pair-best-model", "1", "data_fingerprint", "that of other data")
    line = register(study, Tracker(tiny.tracking_uri), LocalWorkers(1), number=other)
    tiny.client.set_model_version_tag("pair-best-model", "1", "data_fingerprint", before)
    assert "version 2, verified; production is not moved: version 1 was scored on other data" in line
    assert production(tiny, "pair") == "1"


def test_collapsed_model_replaces_another_only_on_request(tiny: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    study, other = copy_study(tiny, "collapsed", collapsed=True)
    tracker, workers = Tracker(tiny.tracking_uri), LocalWorkers(1)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("read all trials")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "get_all_trials", refuse)
        patch.setattr(optuna.storages.RDBStorage, "_get_trials", refuse)
        line = register(study, tracker, workers)
    assert line.endswith("@production; the model has collapsed: it predicts the same for every input")
    line = register(study, tracker, workers, number=other)
    assert "version 2, verified; production is not moved: the model has collapsed" in line
    assert production(tiny, "collapsed") == "1"
    assert "version 2, verified; production: models:/" in register(study, tracker, workers, number=other, promote=True)
    assert production(tiny, "collapsed") == "2"


def test_model_that_was_measured_in_another_way_is_not_promoted(tiny: StudySandbox, pair: Pair) -> None:
    study, other, _ = pair
    tag = ("pair-best-model", "1", "evaluation_flags")
    before = tiny.client.get_model_version(*tag[:2]).tags[tag[2]]
    assert '"trainer.limit_val_batches": 1.0' in before
    tiny.client.set_model_version_tag(*tag, '{"trainer.limit_val_batches": 1}')
    line = register(study, Tracker(tiny.tracking_uri), LocalWorkers(1), number=other)
    tiny.client.set_model_version_tag(*tag, before)
    assert "version 1 was scored with other values of --trainer.limit_val_batches; to move it" in line
    assert production(tiny, "pair") == "1"


@pytest.mark.parametrize(
    "reply", [(503, PAGE), (404, PAGE), as_json(403, error_code="PERMISSION_DENIED", message="no rights")]
)
def test_model_is_not_promoted_if_the_registry_does_not_tell_its_current_version(
    study: optuna.Study, tracker: Tracker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reply: Reply
) -> None:
    study.set_user_attr("agent", "first")
    model = ScoredModel(study, TrialFolder(tmp_path), None, 0.5, False, None, {"optuna_trial": "0"}, "--trial 0")
    client = tracker.client
    client.create_registered_model("first-best-model")
    version = client.create_model_version("first-best-model", source=str(tmp_path))
    with fake_server(lambda path: reply) as address:
        ask = MlflowClient(address, address).get_model_version_by_alias
        with monkeypatch.context() as patch:
            patch.setattr(client, "get_model_version_by_alias", ask)
            line = update_alias(model, tracker, version)
    assert line.startswith("production is not moved: MLflow ")
    assert ", so it is unknown which version has it; to move it: lightning-hpo register" in line
    assert client.get_registered_model("first-best-model").aliases == {}
    assert update_alias(model, tracker, version) == "production: models:/first-best-model@production"
