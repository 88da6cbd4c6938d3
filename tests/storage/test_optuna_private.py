from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

import lightning_hpo
from lightning_hpo.storage.optuna_private import (
    TRIAL_START,
    has_reported,
    pause_trial,
    reattach,
    set_trial_user_attr,
    storage_of,
    stored_trial,
    trial_by_number,
    trial_id_of,
)


@pytest.fixture
def study(storage_url: str) -> optuna.Study:
    optuna.create_study(study_name="other", storage=storage_url).ask()  # so that ids and numbers differ
    return optuna.create_study(study_name="first", storage=storage_url)


def test_private_names_are_known_for_this_version_of_optuna() -> None:
    assert optuna.__version__.startswith("5.")


def test_storage_of_a_study_reads_the_same_study(study: optuna.Study) -> None:
    study.set_user_attr("agent", "criteria")
    again = optuna.load_study(study_name="first", storage=storage_of(study))
    assert again.user_attrs == {"agent": "criteria"}


def test_trial_is_found_by_its_number(study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)
    found = trial_by_number(study, 0)
    assert found is not None
    assert (found.number, found.value, trial_id_of(found)) == (0, 0.5, trial_id_of(trial))
    assert trial_id_of(trial) != trial.number
    assert trial_by_number(study, 1) is None


def test_stored_trial_is_the_current_state(study: optuna.Study) -> None:
    trial = study.ask()
    before = stored_trial(study, trial)
    study.tell(trial, 0.5)
    assert (before.state, stored_trial(study, before).state) == (TrialState.RUNNING, TrialState.COMPLETE)


def test_paused_trial_is_returned_by_the_next_ask(study: optuna.Study) -> None:
    trial = study.ask()
    lr = trial.suggest_float("lr", 0.0, 1.0)
    trial.report(0.25, 0)
    pause_trial(study, trial)
    again = study.ask()
    assert (again.number, again.suggest_float("lr", 0.0, 1.0), has_reported(again, 0)) == (trial.number, lr, True)


def test_reattached_trial_reports_for_the_first(study: optuna.Study) -> None:
    trial = study.ask()
    again = reattach(study, stored_trial(study, trial))
    again.report(0.25, 3)
    assert (has_reported(again, 3), has_reported(again, 4)) == (True, False)
    assert stored_trial(study, trial).intermediate_values == {3: 0.25}


def test_user_attribute_is_stored_until_the_trial_is_finished(study: optuna.Study) -> None:
    trial = study.ask()
    set_trial_user_attr(study, stored_trial(study, trial), "mlflow_run_id", "abc")
    assert stored_trial(study, trial).user_attrs == {"mlflow_run_id": "abc"}
    study.tell(trial, 0.5)
    with pytest.raises(UpdateFinishedTrialError):
        set_trial_user_attr(study, trial, "mlflow_run_id", "xyz")


def test_start_column_belongs_to_the_trial_table(study: optuna.Study, storage_url: str) -> None:
    trial = stored_trial(study, study.ask())
    with RDBStorage(storage_url).engine.connect() as connection:
        starts = list(connection.scalars(TRIAL_START.table.select().with_only_columns(TRIAL_START)))
    assert trial.datetime_start is not None
    assert len(starts) == 2


def test_no_other_module_of_the_package_uses_private_names() -> None:
    private = ("._storage", "._trial_id", "._study_id", "._cached_frozen_trial", "optuna.storages._")
    used = {
        path.name
        for path in Path(lightning_hpo.__file__).parent.rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in private)
    }
    assert used == {"optuna_private.py"}
