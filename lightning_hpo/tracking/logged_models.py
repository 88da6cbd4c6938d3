"""Models that the runs of a study have logged."""

from mlflow.entities import LoggedModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from lightning_hpo.tracking.locations import is_below
from lightning_hpo.tracking.tracker import Tracker, find_entity

__all__ = ["delete_model", "delete_models_of", "find_model"]


def find_model(tracker: Tracker, uri: str) -> LoggedModel | None:
    """Return a logged model, or None if it does not exist."""
    return find_entity(tracker.client.get_logged_model, uri.removeprefix("models:/"))


def delete_models_of(tracker: Tracker, run_id: str) -> None:
    """Delete the models that a run has logged, except those that a registered version uses."""
    experiment_id = tracker.client.get_run(run_id).info.experiment_id
    for model in tracker.client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        delete_model(tracker, str(model.model_uri))


def delete_model(tracker: Tracker, uri: str) -> None:
    """Delete a logged model with its files, unless it does not exist or a registered version uses it."""
    client, model = tracker.client, find_model(tracker, uri)
    if model is None or client.search_model_versions(f"run_id = '{model.source_run_id}'"):
        return
    root = str(client.get_experiment(model.experiment_id).artifact_location)
    if is_below(str(model.artifact_location), root, tracker.artifacts):
        repository = get_artifact_repository(model.artifact_location, tracker.uri)
        repository.delete_artifacts()  # type: ignore[no-untyped-call]
    client.delete_logged_model(model.model_id)
