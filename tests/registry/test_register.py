from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.registry import register as module
from lightning_hpo.registry.promote import ALIAS
from lightning_hpo.registry.register import register
from lightning_hpo.storage.attributes import folder_of
from lightning_hpo.study.retention import CheckpointRetention
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import Outcome, OutcomeKind
from tests.registry.conftest import copy_study
from tests.study_sandbox import StudySandbox


def _without_models(study: optuna.Study, storage: str) -> optuna.Study:
    """Copy a study as if MLflow had not responded when the models were logged."""
    copy = optuna.create_study(study_name="copy", storage=storage, direction="maximize")
    for key, value in study.user_attrs.items():
        copy.set_user_attr(key, value)
    for trial in study.trials:
        trial.user_attrs.pop("mlflow_model_uri", None)
        copy.add_trial(trial)
    return copy


def test_model_that_was_not_logged_is_logged_once(sandbox: StudySandbox) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    copy = _without_models(optuna.load_study(study_name="first", storage=sandbox.storage), sandbox.storage)
    tracker, workers = Tracker(sandbox.tracking_uri), LocalWorkers(1)
    assert register(copy, tracker, workers).startswith("registered foreignmodule-best-model version 1, verified")
    models = len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")]))
    assert register(copy, tracker, workers).startswith("registered foreignmodule-best-model version 1, verified")
    assert len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")])) == models


def test_trial_without_model_and_checkpoint_is_refused(sandbox: StudySandbox) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    copy = _without_models(optuna.load_study(study_name="first", storage=sandbox.storage), sandbox.storage)
    best = Path(sandbox.outdir, "first/trial_0/best.ckpt")
    best.write_bytes(best.read_bytes()[:1000])
    with pytest.raises(LightningHpoError, match=r"^copy: trial 0 cannot be registered: .*/best.ckpt: .* is damaged$"):
        register(copy, Tracker(sandbox.tracking_uri), LocalWorkers(1))
    best.unlink()
    with pytest.raises(LightningHpoError, match=r"^copy: trial 0 cannot be registered: its checkpoint was deleted"):
        register(copy, Tracker(sandbox.tracking_uri), LocalWorkers(1))


def test_model_is_not_logged_to_the_run_of_the_study_that_was_copied(sandbox: StudySandbox) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    copy = _without_models(optuna.load_study(study_name="first", storage=sandbox.storage), sandbox.storage)
    copy.set_user_attr("study_id", "its own")
    tracker = Tracker(sandbox.tracking_uri)
    models = len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")]))
    with pytest.raises(LightningHpoError, match=r"its run belongs to the study that it was imported from; register it"):
        register(copy, tracker, LocalWorkers(1))
    assert len(tracker.client.search_logged_models([tracker.experiment("foreignmodule-first")])) == models


def test_trial_without_a_run_is_refused(sandbox: StudySandbox) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    copy = _without_models(optuna.load_study(study_name="first", storage=sandbox.storage), sandbox.storage)
    tracker = Tracker(sandbox.tracking_uri)
    tracker.client.delete_run(copy.best_trial.user_attrs["mlflow_run_id"])
    with pytest.raises(LightningHpoError, match=r"trial 0 cannot be registered: its run is not in MLflow$"):
        register(copy, tracker, LocalWorkers(1))


def test_any_complete_trial_with_a_checkpoint_can_be_registered(sandbox: StudySandbox) -> None:
    flags = ("--study.n_trials", "3", "--study.keep", "2", "--study.register", "false", "--study.pruner", "NopPruner")
    assert sandbox.tune("first", *flags) == 0
    study, tracker = optuna.load_study(study_name="first", storage=sandbox.storage), Tracker(sandbox.tracking_uri)
    ranked = sorted(study.trials, key=lambda trial: float(trial.value or 0.0), reverse=True)
    line = register(study, tracker, LocalWorkers(1), number=ranked[1].number)
    assert line.startswith("registered foreignmodule-best-model version 1, verified")
    version = tracker.client.get_model_version_by_alias("foreignmodule-best-model", ALIAS)
    assert version.tags["optuna_trial"] == str(ranked[1].number)
    with pytest.raises(LightningHpoError, match=r"cannot be registered: its checkpoint was deleted; --study\.keep"):
        register(study, tracker, LocalWorkers(1), number=ranked[2].number)
    with pytest.raises(InputError, match=r"^--trial: got 7, which is not a complete trial of first; `lightning-hpo"):
        register(study, tracker, LocalWorkers(1), number=7)


def test_tune_deletes_no_model_while_it_is_registered(tiny: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    study, _ = copy_study(tiny, "busy")
    best, tracker = study.best_trial, Tracker(tiny.tracking_uri)
    retention, create_version = CheckpointRetention(study, tracker, keep=1), module._create_version

    def create_while_a_better_trial_ends(*arguments: Any) -> Any:
        better = Outcome(OutcomeKind.COMPLETE, value=2.0)
        retention.on_trial_end(study.ask(), TrialState.COMPLETE, better)
        retention.on_wait()
        return create_version(*arguments)

    monkeypatch.setattr(module, "_create_version", create_while_a_better_trial_ends)
    line = register(study, tracker, LocalWorkers(1), number=best.number)
    assert line.startswith("registered busy-best-model version 1, verified")
    assert folder_of(study).trial(best.number).best.exists()


def test_study_with_several_objectives_is_refused(storage_url: str, tracker: Tracker) -> None:
    study = optuna.create_study(study_name="two", storage=storage_url, directions=["maximize", "minimize"])
    study.set_user_attr("agent", "criteria")  # an earlier version stored it before it stopped
    study.tell(study.ask(), (0.5, 0.5))
    with pytest.raises(InputError, match=r"^two: the study has 2 objectives; use a study with one$"):
        register(study, tracker, LocalWorkers(1))


def test_study_from_elsewhere_is_refused(study: optuna.Study, tracker: Tracker) -> None:
    study.tell(study.ask(), 0.5)
    with pytest.raises(InputError, match=r"^first: the study was not created by `tune`, so its trials have no models$"):
        register(study, tracker, LocalWorkers(1))
