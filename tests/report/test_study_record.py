import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpo.exceptions import InputError
from lightning_hpo.report.study_record import StudyRecord, evenly, seconds_of
from tests.report.studies import make_trial


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(study_name="two", directions=["maximize", "minimize"])
    with pytest.raises(InputError, match=r"^two: it has 2 objectives; a report is of a study with one$"):
        StudyRecord(study, {})


def test_the_best_is_optuna_s_best() -> None:
    for direction in ("maximize", "minimize"):
        study = optuna.create_study(direction=direction)
        study.add_trials([make_trial(number) for number in range(12)])
        assert StudyRecord(study, {}).best == study.best_trial


def test_seconds_are_those_of_training_or_else_from_start_to_end() -> None:
    trial = make_trial(0)
    assert seconds_of(trial) == 80
    del trial.user_attrs["runtime_s"]
    assert trial.datetime_complete is not None
    assert seconds_of(trial) == 80
    trial.datetime_complete = None
    assert seconds_of(trial) == 0


@given(st.lists(st.integers(), unique=True, max_size=60), st.integers(2, 20))
@settings(deadline=None, derandomize=True, database=None)
def test_an_even_choice_keeps_order_and_both_ends(items: list[int], most: int) -> None:
    chosen = evenly(items, most)
    assert len(chosen) == min(len(items), most)
    assert [item for item in items if item in set(chosen)] == chosen
    assert chosen[:1] + chosen[-1:] == items[:1] + items[-1:]
