"""MLflow's run of a study as a whole, for its report or its refit."""

from lightning_hpo.tracking.tracker import Tracker, quoted

__all__ = ["study_run"]

_STUDY_AS_A_WHOLE = "study_as_a_whole"


def study_run(
    tracker: Tracker, experiment_id: str, study: str, agent: str, name: str = "study", study_id: str | None = None
) -> str:
    """Return the id of the run of a study as a whole; create the run if it is missing.

    Its tags differ from those of a trial's run, so that it is never taken for one. A run without the id of a study
    was created by a version without ids.

    Args:
        tracker: MLflow's side of the study.
        experiment_id: Id of the study's experiment.
        study: Name of the study.
        agent: Agent that is tuned.
        name: Name of a new run.
        study_id: Id of the study, if it has one.
    """
    own = {} if study_id is None else {"study_id": study_id}
    tags = {_STUDY_AS_A_WHOLE: study, **own}
    wanted = " AND ".join(f"tags.{key} = {quoted(text)}" for key, text in tags.items())
    found = tracker.client.search_runs([experiment_id], wanted, max_results=1)
    if found:
        return str(found[0].info.run_id)
    return tracker.start_run(experiment_id, name, {"agent": agent, **tags})
