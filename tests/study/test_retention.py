from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.study.retention import CheckpointRetention, unneeded_checkpoints
from lightning_hpo.tracking.tracker import Tracker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "first"


def _train(study: optuna.Study, folder: Path) -> optuna.Trial:
    trial = study.ask()
    (folder / f"trial_{trial.number}").mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt", "previous.ckpt", "last.ckpt.partial", "config.yaml"):
        (folder / f"trial_{trial.number}" / name).write_text("x")
    return trial


def _settle(study: optuna.Study, weights: CheckpointRetention, folder: Path, *values: float) -> None:
    for value in values:
        trial = _train(study, folder)
        study.tell(trial, value)
        weights.settle(trial.number, TrialState.COMPLETE, value, None)


def _kept(folder: Path, name: str = "best.ckpt") -> list[int]:
    return sorted(int(path.parent.name.removeprefix("trial_")) for path in folder.glob(f"trial_*/{name}"))


def test_the_best_few_keep_their_weights(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _settle(study, CheckpointRetention(study, tracker, folder, keep=2), folder, 0.3, 0.5, 0.1, 0.4)
    assert _kept(folder) == [1, 3]
    assert [_kept(folder, name) for name in ("last.ckpt", "previous.ckpt", "last.ckpt.partial")] == [[], [], []]
    assert _kept(folder, "config.yaml") == [0, 1, 2, 3]


def test_of_equals_the_first_keeps_its_weights(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _settle(study, CheckpointRetention(study, tracker, folder, keep=1), folder, 0.5, 0.5, 0.5)
    assert _kept(folder) == [0]


def test_less_is_better_where_the_study_says_so(tracker: Tracker, folder: Path) -> None:
    study = optuna.create_study(direction="minimize")
    _settle(study, CheckpointRetention(study, tracker, folder, keep=2), folder, 0.3, 0.5, 0.1, 0.4)
    assert _kept(folder) == [0, 2]


def test_those_of_an_earlier_call_count(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _settle(study, CheckpointRetention(study, tracker, folder, keep=2), folder, 0.3, 0.5)
    _settle(study, CheckpointRetention(study, tracker, folder, keep=2), folder, 0.4)
    assert _kept(folder) == [1, 2]


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_what_is_not_complete_keeps_none(
    study: optuna.Study, tracker: Tracker, folder: Path, state: TrialState
) -> None:
    weights = CheckpointRetention(study, tracker, folder, keep=2)
    trial = _train(study, folder)
    weights.settle(trial.number, state, None, None)
    assert (_kept(folder), _kept(folder, "last.ckpt"), _kept(folder, "config.yaml")) == ([], [], [0])


def test_a_running_trial_is_left_alone(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    running = _train(study, folder)
    _settle(study, CheckpointRetention(study, tracker, folder, keep=1), folder, 0.3, 0.5)
    assert _kept(folder) == [running.number, 2]
    assert _kept(folder, "last.ckpt") == [running.number]


def test_what_is_left_of_a_trial_that_is_over_is_unowned(study: optuna.Study, folder: Path) -> None:
    study.tell(_train(study, folder), 0.5)
    _train(study, folder)
    left = [f"{path.parent.name}/{path.name}" for path in unneeded_checkpoints(study, folder)]
    assert left == [f"trial_0/{name}" for name in ("last.ckpt", "last.ckpt.partial", "previous.ckpt")]


def test_a_trial_without_files_is_no_error(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    study.ask()
    CheckpointRetention(study, tracker, folder, keep=1).settle(0, TrialState.FAIL, None, None)
    assert not folder.exists()


def test_a_surplus_model_goes_with_its_weights(
    study: optuna.Study, tracker: Tracker, run_id: str, folder: Path
) -> None:
    experiment = tracker.client.get_run(run_id).info.experiment_id
    models = [tracker.client.create_logged_model(experiment, name="model", source_run_id=run_id) for _ in range(2)]
    for model in models:
        Path(model.artifact_location).mkdir(parents=True)
        (Path(model.artifact_location) / "weights").write_text("x")
    weights = CheckpointRetention(study, tracker, folder, keep=1)
    for value, model in zip((0.3, 0.5), models, strict=True):
        trial = _train(study, folder)
        study.tell(trial, value)
        weights.settle(trial.number, TrialState.COMPLETE, value, model.model_uri)
    assert [(Path(model.artifact_location) / "weights").exists() for model in models] == [False, True]
