import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from lightning_hpo.exceptions import InputError
from lightning_hpo.report.study_record import StudyRecord, seconds_of, thin_out
from tests.report.studies import make_study, make_trial


def test_study_with_several_objectives_is_an_error() -> None:
    study = optuna.create_study(study_name="two", directions=["maximize", "minimize"])
    with pytest.raises(InputError, match=r"^two: the study has 2 objectives; use a study with one$"):
        StudyRecord(study, {})


def test_best_trial_is_optunas_best_trial() -> None:
    for direction in ("maximize", "minimize"):
        study = optuna.create_study(direction=direction)
        study.add_trials([make_trial(number) for number in range(12)])
        assert StudyRecord(study, {}).best == study.best_trial


def test_seconds_are_the_recorded_runtime_or_else_the_elapsed_time() -> None:
    trial = make_trial(0)
    assert seconds_of(trial) == 80
    del trial.user_attrs["runtime_s"]
    assert trial.datetime_complete is not None
    assert seconds_of(trial) == 80
    trial.datetime_complete = None
    assert seconds_of(trial) == 0


@given(st.lists(st.integers(), unique=True, max_size=60), st.integers(2, 20))
@settings(deadline=None, derandomize=True, database=None)
def test_thinning_out_keeps_the_order_and_both_ends(items: list[int], most: int) -> None:
    chosen = thin_out(items, most)
    assert len(chosen) == min(len(items), most)
    assert [item for item in items if item in set(chosen)] == chosen
    assert chosen[:1] + chosen[-1:] == items[:1] + items[-1:]


def test_importances_sum_to_one_and_the_right_parameter_leads() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(60):
        trial = study.ask()
        if trial.suggest_categorical("aug.enabled", [True, False]):
            trial.suggest_float("aug.p_apply", 0, 1)
        study.tell(trial, trial.suggest_float("lr", 0, 1) + 0.001 * (number % 3))
    record = StudyRecord(study, {})
    assert set(record.importances) == {"lr", "aug.enabled", "aug.p_apply"}
    assert record.parameters == list(record.importances)
    assert record.parameters[0] == "lr"
    assert sum(record.importances.values()) == pytest.approx(1)


def test_view_is_thinned_out_but_keeps_numbers_and_the_best_trial() -> None:
    record = StudyRecord(make_study(None, [make_trial(number) for number in range(100)]), {})
    assert record.best is not None
    view = record.view(record.trials, 10)
    numbers = [trial.number for trial in view.get_trials()]
    assert len(numbers) in (10, 11)
    assert (numbers[0], numbers[-1]) == (0, 99)
    assert record.best.number in numbers
    assert numbers == sorted(numbers)
    assert view.direction == record.study.direction
    assert view.get_trials(states=(TrialState.PRUNED,)) == []
