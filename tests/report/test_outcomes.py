import itertools
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from lightning_hpo.report.course import endings, places, timeline
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import START, every_ending, make_study, make_trial

Span = tuple[datetime, datetime]


def _spans(numbers: list[tuple[int, int]]) -> list[Span]:
    return [(START + timedelta(hours=first), START + timedelta(hours=first + hours)) for first, hours in numbers]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=25))
@settings(deadline=None, derandomize=True, database=None)
def test_spans_in_one_place_never_overlap_and_no_place_is_wasted(numbers: list[tuple[int, int]]) -> None:
    spans = _spans(numbers)
    found = places(spans)
    for place in set(found):
        own = sorted(span for span, at in zip(spans, found, strict=True) if at == place)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(own))
    most = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    assert max(found) + 1 == most


def test_the_timeline_has_every_trial_that_began() -> None:
    record = StudyRecord(make_study(None, every_ending()), {})
    (panel,) = timeline(record).panels
    found = {series.name: series for series in panel.series}
    assert set(found) == {"complete", "pruned", "failed", "running since"}
    assert sum(len(series.x) for series in panel.series) == 39
    assert found["running since"].kind == "points"
    assert list((panel.y_ticks or {}).values()) == ["worker 1", "worker 2"]
    assert found["complete"].base[0] == 0.0
    assert found["complete"].x[0] == 80 / 60  # minutes


def test_a_parked_trial_keeps_no_worker_busy() -> None:
    parked = make_trial(0, TrialState.WAITING)
    parked.datetime_start = START
    record = StudyRecord(make_study(None, [parked, make_trial(9)]), {})
    (panel,) = timeline(record).panels
    assert list((panel.y_ticks or {}).values()) == ["worker 1"]


def test_endings_are_counted_the_failed_ones_by_reason() -> None:
    picture = endings(StudyRecord(make_study(None, every_ending()), {}))
    (panel,) = picture.panels
    assert list((panel.y_ticks or {}).values()) == [
        "complete (25)",
        "pruned (11)",
        "failed: out of memory (1)",
        "failed: train_loss is nan at epoch 1 (1)",
        "running (1)",
        "parked (1)",
    ]
    assert sum(x or 0 for series in panel.series for x in series.x) == 40


def test_very_many_reasons_end_in_one_bar() -> None:
    trials = [make_trial(number, TrialState.FAIL, ended_by=f"reason {number}") for number in range(20)]
    assert "12 failed: other reasons" in endings(StudyRecord(make_study(None, trials), {})).says


def test_an_empty_study_has_words() -> None:
    record = StudyRecord(make_study(None, []), {})
    assert (endings(record).panels, timeline(record).panels) == ((), ())
    assert endings(record).says == "The study has no trials."
    assert "No trial has begun" in timeline(record).says
