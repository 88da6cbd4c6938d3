import itertools
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from lightning_hpo.report.parameters import importance, importances, parallel, slices
from lightning_hpo.report.picture import Picture
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import KINDS, every_ending, make_study, make_trial


@pytest.fixture(scope="module")
def record() -> StudyRecord:
    return StudyRecord(make_study(None, every_ending()), {})


def test_shares_of_importance_are_of_every_parameter_and_the_right_one_leads() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(60):
        trial = study.ask()
        if trial.suggest_categorical("aug.enabled", [True, False]):
            trial.suggest_float("aug.p_apply", 0, 1)
        study.tell(trial, trial.suggest_float("lr", 0, 1) + 0.001 * (number % 3))
    shares = importances(StudyRecord(study, {}))
    assert set(shares) == {"lr", "aug.enabled", "aug.p_apply"}
    assert next(iter(shares)) == "lr"
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("trials", "kinds", "said"),
    [
        (0, KINDS, "there are none"),
        (1, KINDS, "there is one"),
        (6, {}, "Nothing was searched"),
        (6, {"model.optim.lr": KINDS["model.optim.lr"]}, "model.optim.lr alone was searched"),
        (6, {name: CategoricalDistribution(["same"]) for name in ("a", "b")}, "do not tell the parameters apart"),
    ],
)
def test_without_importance_there_are_words(trials: int, kinds: dict[str, BaseDistribution], said: str) -> None:
    study = make_study(None, [make_trial(number, kinds=kinds) for number in range(trials)])
    record = StudyRecord(study, {})
    picture = importance(record, importances(record))
    assert picture.panels == ()
    assert said in picture.says


def test_few_trials_make_importance_a_hint(record: StudyRecord) -> None:
    picture = importance(record, importances(record))
    assert "a hint and no more" in picture.says
    (panel,) = picture.panels
    assert panel.y_ticks is not None
    assert all(any(label.startswith(name) for label in panel.y_ticks.values()) for name in KINDS)


def test_a_slice_for_every_parameter_with_what_only_some_trials_have(record: StudyRecord) -> None:
    panels = slices(record, {"model.name": 0.9}).panels
    assert len(panels) == len(KINDS)
    assert panels[0].y_label == "model.name"  # the most important first, its choices on the vertical axis
    assert list((panels[0].y_ticks or {}).values()) == list(_choices(KINDS["model.name"]))
    by_name = {panel.x_label: panel for panel in panels}
    assert by_name["model.optim.lr"].x_log
    enabled = [trial for trial in record.complete if trial.params["aug.enabled"]]
    assert list(by_name["aug.p_apply"].series[0].x) == [trial.params["aug.p_apply"] for trial in enabled]


def _choices(kind: BaseDistribution) -> tuple[object, ...]:
    assert isinstance(kind, CategoricalDistribution)
    return kind.choices


def test_parallel_coordinates_go_through_every_axis(record: StudyRecord) -> None:
    (panel,) = parallel(record, importances(record)).panels
    names = ["worst fifth", "fourth fifth", "middle fifth", "second fifth", "best fifth"]
    assert [series.name for series in panel.series[:5]] == names
    drawn = {text.split(":")[0] for series in panel.series for text in series.texts if text}
    assert drawn == {f"trial {trial.number}" for trial in record.complete}
    for series in panel.series:
        inside = [x for x in series.x if x is not None and x >= 0]
        assert max(inside) <= 1
    assert any(text == "not set" for *_, text in panel.notes)
    # The score's axis is the last one, and the best trial ends at its right end.
    assert [x for x in panel.series[-1].x if x is not None][-1] == 1.0


def test_long_choices_are_written_above_and_below_their_axis() -> None:
    kinds: dict[str, BaseDistribution] = {
        "name": CategoricalDistribution([f"some/encoder-{n}-{'x' * 20}" for n in "abcd"])
    }
    record = StudyRecord(make_study(None, [make_trial(number, kinds=kinds) for number in range(20)]), {})
    (panel,) = parallel(record, {}).panels
    heights = [y for _, y, text in panel.notes if text.startswith("some/")]
    assert len(heights) == 4
    assert all(abs(one - other) > 0.4 for one, other in itertools.pairwise(heights))


def test_of_choices_that_have_no_room_the_first_and_the_last_are_written() -> None:
    choices = [f"choice_{'x' * 15}_{n}" for n in range(30)]
    kinds: dict[str, BaseDistribution] = {"name": CategoricalDistribution(choices)}
    trials = [make_trial(number, kinds=kinds) for number in range(200)]
    (panel,) = parallel(StudyRecord(make_study(None, trials), {}), {}).panels
    written = [text for _, y, text in panel.notes if y > -0.5]
    assert written == [choices[0], "30 choices", choices[-1]]


def test_all_slices_have_the_same_scores_on_their_axes(record: StudyRecord) -> None:
    ends = {panel.y_range or panel.x_range for panel in slices(record, {}).panels}
    assert len(ends) == 1


@pytest.mark.parametrize("draw", [slices, parallel])
def test_without_scores_or_parameters_there_are_words(draw: Callable[..., Picture]) -> None:
    for trials, said in (
        ([], "No trial is complete"),
        ([make_trial(0, TrialState.FAIL)], "No trial is complete"),
        ([make_trial(0, kinds={})], "Nothing was searched"),
    ):
        picture = draw(StudyRecord(make_study(None, trials), {}), {})
        assert picture.panels == ()
        assert said in picture.says


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_few_trials_and_one_value_are_drawn(count: int) -> None:
    kinds: dict[str, BaseDistribution] = {
        "a": CategoricalDistribution(["only"]),
        "model.optim.lr": KINDS["model.optim.lr"],
    }
    record = StudyRecord(make_study(None, [make_trial(number, kinds=kinds) for number in range(count)]), {})
    (panel,) = parallel(record, {}).panels
    assert all(len(series.x) > 0 for series in panel.series)
    assert len(slices(record, {}).panels) == 2
