"""What `tune` and the plan's tests do not show of registering."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.registry.register import ALIAS, _tolerance, register
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.tracking.tracker import Tracker
from tests.conftest import Copy
from tests.study_sandbox import StudySandbox, ready_sandbox
from tests.tiny import write_tiny_corpus, write_tiny_encoder


def _without_model(study: optuna.Study, storage: str) -> optuna.Study:
    """The study as it would be, had MLflow been away when the model was to be logged."""
    twin = optuna.create_study(study_name="twin", storage=storage, direction="maximize")
    for key, value in study.user_attrs.items():
        twin.set_user_attr(key, value)
    for trial in study.trials:
        trial.user_attrs.pop("mlflow_model_uri", None)
        twin.add_trial(trial)
    return twin


def test_a_model_that_could_not_be_logged_is_logged_now(sandbox: StudySandbox) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    twin = _without_model(optuna.load_study(study_name="first", storage=sandbox.storage), sandbox.storage)
    tracker, workers = Tracker(sandbox.tracking_uri), LocalWorkers(1)
    assert register(twin, tracker, workers).startswith("registered foreignmodule-best-model version 1, proven")
    models = len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")]))
    assert register(twin, tracker, workers).startswith("registered foreignmodule-best-model version 1, proven")
    assert len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")])) == models


def test_without_model_and_weights_there_is_nothing_to_register(sandbox: StudySandbox) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    twin = _without_model(optuna.load_study(study_name="first", storage=sandbox.storage), sandbox.storage)
    Path(sandbox.outdir, "first/trial_0/best.ckpt").unlink()
    with pytest.raises(LightningHpoError, match=r"^twin: trial 0 cannot be registered: it has no weights any more"):
        register(twin, Tracker(sandbox.tracking_uri), LocalWorkers(1))


def test_any_complete_trial_that_kept_its_weights_can_be_registered(sandbox: StudySandbox) -> None:
    flags = ("--study.n_trials", "3", "--study.keep", "2", "--study.register", "false", "--study.pruner", "NopPruner")
    assert sandbox.tune("first", *flags) == 0
    study, tracker = optuna.load_study(study_name="first", storage=sandbox.storage), Tracker(sandbox.tracking_uri)
    ranked = sorted(study.trials, key=lambda trial: float(trial.value or 0.0), reverse=True)
    said = register(study, tracker, LocalWorkers(1), number=ranked[1].number)
    assert said.startswith("registered foreignmodule-best-model version 1, proven")
    version = tracker.client.get_model_version_by_alias("foreignmodule-best-model", ALIAS)
    assert version.tags["optuna_trial"] == str(ranked[1].number)
    with pytest.raises(LightningHpoError, match=r"cannot be registered: it has no weights any more; the best"):
        register(study, tracker, LocalWorkers(1), number=ranked[2].number)
    with pytest.raises(InputError, match=r"^--trial: first has no complete trial 7; `lightning-hpo status --study"):
        register(study, tracker, LocalWorkers(1), number=7)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, ready_databases: Copy) -> Iterator[StudySandbox]:
    """A study of the criteria agent on a tiny corpus: two complete trials, both with their weights, none registered."""
    with pytest.MonkeyPatch.context() as patch:
        sandbox = ready_sandbox(tmp_path_factory.mktemp("tiny"), patch, ready_databases)
        write_tiny_encoder(sandbox.folder / "encoder")
        write_tiny_corpus(sandbox.folder)
        flags = ("--study.n_trials", "2", "--study.register", "false", "--study.pruner", "NopPruner")
        assert sandbox.tune("tiny", *flags, config=_config("CriteriaAgent", "CriteriaDataModule")) == 0
        yield sandbox


def _config(agent: str, data: str, **model: Any) -> dict[str, Any]:
    files = {"posts": "posts.csv", "annotations": "annotations.csv", "criteria": "criteria.yaml"}
    return {
        "model": {"class_path": f"lightning_hpo.agents.{agent}", "init_args": {"name": "encoder", **model}},
        "data": {
            "class_path": f"lightning_hpo.data.{data}",
            "init_args": {**files, "max_length": 24, "stride": 4, "val_fraction": 0.3},
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0},
        "search_space": {"model.optim.lr": {"low": 1.0e-3, "high": 1.0e-1, "log": True}},
    }


def _twin(sandbox: StudySandbox, name: str, **changed: Any) -> tuple[optuna.Study, int]:
    """The study of two trials once more, under another agent's name, and the number of the trial that is not best."""
    study = optuna.load_study(study_name="tiny", storage=sandbox.storage)
    twin = optuna.create_study(study_name=name, storage=sandbox.storage, direction="maximize")
    for key, value in {**study.user_attrs, "agent": name}.items():
        twin.set_user_attr(key, value)
    for trial in study.trials:
        for key, value in {"collapsed": False, **changed}.items():
            trial.set_user_attr(key, value)
        twin.add_trial(trial)
    return twin, 1 - twin.best_trial.number


@pytest.fixture(scope="module")
def pair(tiny: StudySandbox) -> tuple[optuna.Study, int, str]:
    """Both trials as versions, the best first, the number of the other, and what was said of that one."""
    study, other = _twin(tiny, "pair")
    tracker, workers = Tracker(tiny.tracking_uri), LocalWorkers(1)
    assert "version 1, proven, production" in register(study, tracker, workers)
    return study, other, register(study, tracker, workers, number=other)


def _production(sandbox: StudySandbox, name: str) -> str:
    return str(sandbox.client.get_model_version_by_alias(f"{name}-best-model", ALIAS).version)


def test_a_worse_model_is_not_promoted(tiny: StudySandbox, pair: tuple[optuna.Study, int, str]) -> None:
    _, other, said = pair
    assert "version 2, proven; production stays where it is: version 1 is no worse (" in said
    assert said.endswith(f"`lightning-hpo register --study pair --trial {other} --promote` moves it all the same")
    assert _production(tiny, "pair") == "1"


def test_a_model_that_was_scored_on_other_data_is_not_promoted(
    tiny: StudySandbox, pair: tuple[optuna.Study, int, str]
) -> None:
    study, other, _ = pair
    before = tiny.client.get_model_version("pair-best-model", "1").tags["data_fingerprint"]
    tiny.client.set_model_version_tag("pair-best-model", "1", "data_fingerprint", "that of other data")
    said = register(study, Tracker(tiny.tracking_uri), LocalWorkers(1), number=other)
    tiny.client.set_model_version_tag("pair-best-model", "1", "data_fingerprint", before)
    assert "version 2, proven; production stays where it is: version 1 was scored on other data" in said
    assert _production(tiny, "pair") == "1"


def test_a_model_whose_data_have_changed_is_not_promoted(
    tiny: StudySandbox, pair: tuple[optuna.Study, int, str]
) -> None:
    study, other, _ = pair
    posts = tiny.folder / "posts.csv"
    before = posts.read_text()
    posts.write_text(before + "p99,the dog is fine\n")
    with pytest.raises(LightningHpoError, match=r"production stays where it is: the data that its config names have"):
        register(study, Tracker(tiny.tracking_uri), LocalWorkers(1), number=other, promote=True)
    posts.write_text(before)
    assert _production(tiny, "pair") == "1"


def test_a_flipped_bit_of_a_weight_is_found(tiny: StudySandbox, pair: tuple[optuna.Study, int, str]) -> None:
    study, other, _ = pair
    source = str(tiny.client.get_model_version("pair-best-model", "2").source)
    weights = Path(source.removeprefix("file://"), "data/model.pt2")
    before = weights.read_bytes()
    content = bytearray(before)
    content[len(content) // 2] ^= 0b0100_0000
    weights.write_bytes(content)
    with pytest.raises(LightningHpoError) as caught:
        register(study, Tracker(tiny.tracking_uri), LocalWorkers(1), number=other, promote=True)
    weights.write_bytes(before)
    assert str(caught.value) == (
        "models:/pair-best-model/2 is registered but not proven, so production stays where it is: its file "
        "data/model.pt2 is not the one that was logged, by its sha256"
    )
    assert _production(tiny, "pair") == "1"


def test_a_collapsed_model_is_told_and_takes_no_place_unless_told_to(
    tiny: StudySandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = _twin(tiny, "collapsed", collapsed=True)
    tracker, workers = Tracker(tiny.tracking_uri), LocalWorkers(1)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("read all trials")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "get_all_trials", refuse)
        patch.setattr(optuna.storages.RDBStorage, "_get_trials", refuse)
        said = register(study, tracker, workers)
    assert said.endswith("@production; its trial has collapsed, so it gives every pair the same answer")
    said = register(study, tracker, workers, number=other)
    assert "version 2, proven; production stays where it is: its trial has collapsed" in said
    assert _production(tiny, "collapsed") == "1"
    assert "version 2, proven, production" in register(study, tracker, workers, number=other, promote=True)
    assert _production(tiny, "collapsed") == "2"


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(None, 1e-4), ("32-true", 1e-4), ("bf16-mixed", 5e-3), ("16-mixed", 5e-3), ("auto", 5e-3)],
)
def test_fewer_bits_may_score_a_little_differently(tmp_path: Path, precision: str | None, tolerance: float) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"precision": precision}}))
    assert _tolerance(tmp_path) == tolerance


def test_a_calibrated_model_is_proven_with_the_threshold_that_it_was_scored_with(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_encoder(sandbox.folder / "encoder")
    write_tiny_corpus(sandbox.folder)
    decoding: Any = {"null_policy": "calibrated", "null_threshold": 50.0, "top_k": 2}
    config = _config("EvidenceAgent", "EvidenceDataModule", decoding=decoding)
    assert sandbox.tune("calibrated", "--study.n_trials", "1", config=config) == 0
    assert "registered evidence-best-model version 1, proven" in capsys.readouterr().err
