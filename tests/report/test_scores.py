import math
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.report.picture import Panel, Picture, Series
from lightning_hpo.report.scores import curves, history
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import ABOUT, every_ending, make_study, make_trial


def _series(picture: Picture) -> dict[str, Series]:
    (panel,) = picture.panels
    return {series.name: series for series in panel.series}


def test_the_history_holds_complete_trials_the_best_so_far_and_the_constant_answers() -> None:
    record = StudyRecord(make_study(None, every_ending()), {})
    picture = history(record)
    found = _series(picture)
    assert list(found["complete"].x) == [trial.number for trial in record.complete if trial.number != 35]
    assert list(found["complete, but every answer is the same"].x) == [35]
    best = [value for value in found["best so far"].y if value is not None]
    assert best == sorted(best)
    assert best[-1] == record.study.best_value
    (panel,) = picture.panels
    assert panel.levels == {"constant answer: always met": 0.4242, "constant answer: never met": 0.0}


def test_the_best_so_far_falls_where_less_is_better() -> None:
    study = optuna.create_study(direction="minimize")
    for value in (0.5, 0.7, 0.2):
        study.tell(study.ask(), value)
    assert list(_series(history(StudyRecord(study, {})))["best so far"].y) == [0.5, 0.5, 0.5, 0.2, 0.2]


def test_constant_answers_stand_only_beside_what_they_are_scored_in() -> None:
    study = make_study(None, [make_trial(0)], ABOUT | {"monitor": "val_loss"})
    (panel,) = history(StudyRecord(study, {})).panels
    assert panel.levels == {}


def test_the_curves_of_pruned_trials_end_with_a_cross() -> None:
    record = StudyRecord(make_study(None, every_ending()), {})
    picture = curves(record)
    found = _series(picture)
    pruned = record.of(TrialState.PRUNED)
    crosses = found["stopped by the pruner"]
    assert crosses.symbol == "x"
    assert list(crosses.x) == [len(trial.intermediate_values) for trial in pruned]
    assert list(crosses.texts) == [f"trial {trial.number}" for trial in pruned]
    assert f"{len(pruned)} pruned trials" in picture.says
    assert record.best is not None
    assert list(found[f"best: trial {record.best.number}"].y) == [*record.best.intermediate_values.values(), None]


def test_of_very_many_curves_an_even_choice_is_drawn_and_the_page_says_so() -> None:
    trials = [make_trial(number, kinds={}) for number in range(400)]
    picture = curves(StudyRecord(make_study(None, trials), {}))
    lines = _series(picture)["complete"]
    drawn = list(dict.fromkeys(text for text in lines.texts if text))
    assert len(drawn) == 150
    assert (drawn[0], drawn[-1]) == ("trial 0", "trial 399")
    assert "150 lines are drawn" in picture.says


@pytest.mark.parametrize("draw", [history, curves])
def test_without_scores_there_are_words(draw: Callable[[StudyRecord], Picture]) -> None:
    for trials in ([], [make_trial(0, TrialState.FAIL)]):
        picture = draw(StudyRecord(make_study(None, trials), {}))
        assert picture.panels == ()
        assert "No trial" in picture.says


def test_a_value_that_is_not_finite_breaks_its_line() -> None:
    trial = make_trial(0)
    trial.intermediate_values[2] = math.nan
    panel = curves(StudyRecord(make_study(None, [trial]), {})).panels[0]
    assert isinstance(panel, Panel)
    assert math.isnan(float(panel.series[0].y[2] or 0.0))
