from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from lightning_hpo.tracking.logged_models import delete_model, delete_models_of, find_model
from lightning_hpo.tracking.tracker import Tracker


def _log_model(tracker: Tracker, run_id: str) -> tuple[str, Path]:
    experiment = tracker.experiment("criteria-first")
    model = tracker.client.create_logged_model(experiment, name="model", source_run_id=run_id)
    folder = Path(model.artifact_location)
    folder.mkdir(parents=True)
    (folder / "weights.pt2").write_text("weights")
    return str(model.model_uri), folder


def test_model_is_deleted_with_its_files(tracker: Tracker, run_id: str) -> None:
    uri, folder = _log_model(tracker, run_id)
    delete_model(tracker, uri)
    assert not (folder / "weights.pt2").exists()
    with pytest.raises(MlflowException, match="not found"):
        tracker.client.get_logged_model(uri.removeprefix("models:/"))


def test_files_of_a_model_outside_the_own_artifacts_are_not_deleted(tracker: Tracker, tmp_path: Path) -> None:
    experiment = tracker.client.create_experiment("elsewhere", artifact_location=str(tmp_path / "home"))
    run_id = tracker.start_run(experiment, "trial_0", {})
    model = tracker.client.create_logged_model(experiment, name="model", source_run_id=run_id)
    file = Path(model.artifact_location) / "of the user"
    file.parent.mkdir(parents=True)
    file.touch()
    delete_model(tracker, str(model.model_uri))
    assert file.exists()
    assert find_model(tracker, str(model.model_uri)) is None


def test_registered_model_is_not_deleted(tracker: Tracker, run_id: str) -> None:
    uri, folder = _log_model(tracker, run_id)
    tracker.client.create_registered_model("criteria-best-model")
    tracker.client.create_model_version("criteria-best-model", source=str(folder), run_id=run_id)
    delete_model(tracker, uri)
    assert (folder / "weights.pt2").exists()


def test_all_models_of_a_run_are_deleted(tracker: Tracker, run_id: str) -> None:
    other = tracker.start_run(tracker.experiment("criteria-first"), "trial_1", {})
    own, others = [_log_model(tracker, run_id)[0] for _ in range(2)], _log_model(tracker, other)[0]
    delete_models_of(tracker, run_id)
    assert [find_model(tracker, uri) for uri in own] == [None, None]
    assert find_model(tracker, others) is not None
