import pytest

from lightning_hpo.tracking.study_run import study_run
from lightning_hpo.tracking.tracker import Tracker


@pytest.mark.parametrize("name", ["it's", 'the "first"'])
def test_run_of_a_study_is_created_once_and_is_not_that_of_a_trial(tracker: Tracker, name: str) -> None:
    experiment = tracker.experiment("criteria-first")
    made = study_run(tracker, experiment, name, "criteria")
    assert study_run(tracker, experiment, name, "criteria") == made
    assert tracker.find_run(experiment, {"optuna_study": name, "optuna_trial": "3"}) is None


def test_studies_of_one_name_have_runs_of_their_own(tracker: Tracker) -> None:
    experiment = tracker.experiment("criteria-first")
    runs = [study_run(tracker, experiment, "first", "criteria", study_id=own) for own in ("5f1d", "77aa", "5f1d")]
    assert runs[0] == runs[2] != runs[1]
