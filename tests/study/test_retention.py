from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.study import retention
from lightning_hpo.study.retention import CheckpointRetention, unneeded_checkpoints
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.outcome import Outcome, OutcomeKind


@pytest.fixture
def folder(study: optuna.Study, tmp_path: Path) -> Path:
    path = tmp_path / "outputs" / "first"
    study.set_user_attr("outdir", str(path))
    return path


def _train(study: optuna.Study, folder: Path) -> optuna.Trial:
    trial = study.ask()
    (folder / f"trial_{trial.number}").mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt", "previous.ckpt", "last.ckpt.partial", "config.yaml"):
        (folder / f"trial_{trial.number}" / name).write_text("x")
    return trial


def _end(
    retention: CheckpointRetention,
    trial: optuna.Trial,
    state: TrialState,
    value: float | None = None,
    model_uri: str | None = None,
) -> None:
    kinds = {kind.state: kind for kind in OutcomeKind}
    retention.on_trial_end(trial, state, Outcome(kinds[state], value=value, model_uri=model_uri))
    retention.on_wait()


def _complete(study: optuna.Study, retention: CheckpointRetention, folder: Path, *values: float) -> None:
    for value in values:
        trial = _train(study, folder)
        study.tell(trial, value)
        _end(retention, trial, TrialState.COMPLETE, value)


def _kept(folder: Path, name: str = "best.ckpt") -> list[int]:
    return sorted(int(path.parent.name.removeprefix("trial_")) for path in folder.glob(f"trial_*/{name}"))


def test_best_trials_keep_their_weights(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _complete(study, CheckpointRetention(study, tracker, keep=2), folder, 0.3, 0.5, 0.1, 0.4)
    assert _kept(folder) == [1, 3]
    assert [_kept(folder, name) for name in ("last.ckpt", "previous.ckpt", "last.ckpt.partial")] == [[], [], []]
    assert _kept(folder, "config.yaml") == [0, 1, 2, 3]


def test_checkpoints_of_callbacks_are_deleted_with_the_weights(
    study: optuna.Study, tracker: Tracker, folder: Path
) -> None:
    retention = CheckpointRetention(study, tracker, keep=1)
    for value in (0.3, 0.5):
        trial = _train(study, folder)
        own = folder / f"trial_{trial.number}" / "checkpoints" / "mine"
        own.mkdir(parents=True)
        (own / "epoch=0.ckpt").write_text("x")
        study.tell(trial, value)
        assert list(unneeded_checkpoints(study)).count(own / "epoch=0.ckpt") == 0
        _end(retention, trial, TrialState.COMPLETE, value)
    assert [path.parents[2].name for path in folder.glob("trial_*/checkpoints/mine/*")] == ["trial_1"]
    (folder / "trial_1" / "best.ckpt").unlink()
    assert own / "epoch=0.ckpt" in list(unneeded_checkpoints(study))


def test_first_of_equal_trials_keeps_its_weights(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _complete(study, CheckpointRetention(study, tracker, keep=1), folder, 0.5, 0.5, 0.5)
    assert _kept(folder) == [0]


def test_lowest_values_are_kept_when_minimizing(tracker: Tracker, folder: Path) -> None:
    study = optuna.create_study(direction="minimize")
    study.set_user_attr("outdir", str(folder))
    _complete(study, CheckpointRetention(study, tracker, keep=2), folder, 0.3, 0.5, 0.1, 0.4)
    assert _kept(folder) == [0, 2]


def test_trials_of_an_earlier_command_count(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _complete(study, CheckpointRetention(study, tracker, keep=2), folder, 0.3, 0.5)
    _complete(study, CheckpointRetention(study, tracker, keep=2), folder, 0.4)
    assert _kept(folder) == [1, 2]


def test_pruned_trial_keeps_no_weights(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    retention = CheckpointRetention(study, tracker, keep=2)
    trial = _train(study, folder)
    _end(retention, trial, TrialState.PRUNED)
    assert (_kept(folder), _kept(folder, "last.ckpt"), _kept(folder, "config.yaml")) == ([], [], [0])


def test_failed_trial_keeps_its_weights_until_the_study_is_complete(
    study: optuna.Study, tracker: Tracker, folder: Path
) -> None:
    study.set_user_attr("n_trials", 2)
    retention = CheckpointRetention(study, tracker, keep=2)
    failed = _train(study, folder)
    study.tell(failed, state=TrialState.FAIL)
    _end(retention, failed, TrialState.FAIL)
    _complete(study, retention, folder, 0.5)
    assert (_kept(folder), _kept(folder, "last.ckpt")) == ([0, 1], [0])
    assert list(unneeded_checkpoints(study)) == []  # nor does the next command remove them
    _complete(study, retention, folder, 0.4)
    assert {path.parent.name for path in unneeded_checkpoints(study)} == {"trial_0"}
    retention.on_study_complete()
    assert (_kept(folder), _kept(folder, "last.ckpt"), _kept(folder, "config.yaml")) == ([1, 2], [], [0, 1, 2])


def test_running_trial_keeps_its_checkpoints(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    running = _train(study, folder)
    _complete(study, CheckpointRetention(study, tracker, keep=1), folder, 0.3, 0.5)
    assert _kept(folder) == [running.number, 2]
    assert _kept(folder, "last.ckpt") == [running.number]


def test_resume_checkpoints_of_finished_trials_are_unneeded(study: optuna.Study, folder: Path) -> None:
    study.tell(_train(study, folder), 0.5)
    _train(study, folder)
    left = [f"{path.parent.name}/{path.name}" for path in unneeded_checkpoints(study)]
    assert left == [f"trial_0/{name}" for name in ("last.ckpt", "last.ckpt.partial", "previous.ckpt")]


def test_trial_without_files_is_accepted(study: optuna.Study, tracker: Tracker, folder: Path) -> None:
    _end(CheckpointRetention(study, tracker, keep=1), study.ask(), TrialState.FAIL)
    assert not folder.exists()


def test_surplus_model_is_deleted_with_its_weights(
    study: optuna.Study, tracker: Tracker, run_id: str, folder: Path
) -> None:
    experiment = tracker.client.get_run(run_id).info.experiment_id
    models = [tracker.client.create_logged_model(experiment, name="model", source_run_id=run_id) for _ in range(2)]
    for model in models:
        Path(model.artifact_location).mkdir(parents=True)
        (Path(model.artifact_location) / "weights").write_text("x")
    retention = CheckpointRetention(study, tracker, keep=1)
    for value, model in zip((0.3, 0.5), models, strict=True):
        trial = _train(study, folder)
        study.tell(trial, value)
        _end(retention, trial, TrialState.COMPLETE, value, model.model_uri)
    assert [(Path(model.artifact_location) / "weights").exists() for model in models] == [False, True]


def test_model_of_the_best_trial_is_kept_without_its_checkpoint(
    study: optuna.Study, tracker: Tracker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(retention, "delete_model", lambda _, uri: deleted.append(uri))
    for number, value in enumerate((0.5, 0.9, 0.4)):
        trial = study.ask()
        trial.set_user_attr("mlflow_model_uri", f"models:/m-{number}")
        study.tell(trial, value)
    keeper = CheckpointRetention(study, tracker, keep=2)  # the folder was cleaned
    _complete(study, keeper, folder, 0.1, 0.95)
    assert sorted(deleted) == ["models:/m-0", "models:/m-2"]


def test_checkpoints_of_the_user_are_kept(study: optuna.Study, folder: Path) -> None:
    study.tell(_train(study, folder), 0.5)
    for name in ("swa.ckpt", "best.ckpt.mine"):
        (folder / "trial_0" / name).write_text("x")
    assert {path.name for path in unneeded_checkpoints(study)} == {"last.ckpt", "last.ckpt.partial", "previous.ckpt"}
