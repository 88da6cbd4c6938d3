import math
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from lightning_hpo.report.figures import MAX_AXES, MAX_LINES
from lightning_hpo.report.outcomes import COLORS
from lightning_hpo.report.plotly_figures import draw, to_html
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import ABOUT, KINDS, WIDE, all_outcomes, make_study, make_trial


@pytest.fixture(scope="module")
def record() -> StudyRecord:
    return StudyRecord(make_study(None, all_outcomes()), {})


def _traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_history_has_scores_the_best_so_far_and_baselines(record: StudyRecord) -> None:
    (figure,) = draw("history", record)
    traces = _traces(figure)
    assert list(traces["val_metric"].x) == [trial.number for trial in record.complete]
    assert list(traces["collapsed"].x) == [35]
    best = list(traces["Best Value"].y)
    assert best == sorted(best)
    assert best[-1] == record.study.best_value
    assert [(line.y0, line.name) for line in figure.layout.shapes] == [
        (0.4242, "baseline: always met (0.4242)"),
        (0.0, "baseline: never met (0.0000)"),
    ]


def test_history_falls_if_lower_is_better() -> None:
    study = optuna.create_study(direction="minimize")
    for value in (0.5, 0.7, 0.2):
        study.tell(study.ask(), value)
    (figure,) = draw("history", StudyRecord(study, {}))
    assert list(_traces(figure)["Best Value"].y) == [0.5, 0.5, 0.2]


def test_baselines_are_drawn_only_next_to_their_own_metric() -> None:
    study = make_study(None, [make_trial(0)], ABOUT | {"monitor": "val_loss"})
    (figure,) = draw("history", StudyRecord(study, {}))
    assert len(figure.layout.shapes) == 0


def test_curves_are_colored_by_outcome_with_one_legend_entry_each(record: StudyRecord) -> None:
    assert record.best is not None
    (figure,) = draw("curves", record)
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(legend) == [f"best: trial {record.best.number}", "complete", "pruned", "running"]
    pruned = [trace for trace in figure.data if trace.name == "pruned"]
    assert len(pruned) == len(record.of(TrialState.PRUNED))
    assert {trace.line.color for trace in pruned} == {COLORS[TrialState.PRUNED]}
    assert {trace.x[0] for trace in figure.data} == {1}  # epochs count from 1


def test_curves_of_many_trials_are_thinned_out_and_the_best_is_kept() -> None:
    record = StudyRecord(make_study(None, [make_trial(number, kinds={}) for number in range(900)]), {})
    (figure,) = draw("curves", record)
    assert MAX_LINES <= len(figure.data) <= MAX_LINES + 1
    assert sum(trace.name.startswith("best: ") for trace in figure.data) == 1


def test_curve_with_a_value_that_is_not_finite_is_valid_json() -> None:
    trial = make_trial(0)
    trial.intermediate_values[2] = math.nan
    (figure,) = draw("curves", StudyRecord(make_study(None, [trial]), {}))
    assert "NaN" not in to_html(figure, "curves-0")


def test_history_before_the_first_complete_trial_is_valid_json() -> None:
    record = StudyRecord(make_study(None, [make_trial(0, TrialState.PRUNED), make_trial(1)]), {})
    (figure,) = draw("history", record)
    assert "Infinity" not in to_html(figure, "history-0")


def test_importances_have_a_bar_for_each_parameter(record: StudyRecord) -> None:
    (figure,) = draw("importance", record)
    assert set(figure.data[0].y) == set(KINDS)
    assert figure.data[0].y[-1] == next(iter(record.importances))  # the largest on top


def test_slices_are_sorted_by_importance(record: StudyRecord) -> None:
    drawn = draw("slices", record)
    assert [figure.layout.xaxis.title.text for figure in drawn] == record.parameters
    by_name = {figure.layout.xaxis.title.text: figure for figure in drawn}
    assert by_name["model.optim.lr"].layout.xaxis.type == "log"
    enabled = [trial for trial in record.complete if trial.params["aug.enabled"]]
    assert sorted(by_name["aug.p_apply"].data[0].x) == sorted(trial.params["aug.p_apply"] for trial in enabled)
    assert by_name["model.name"].layout.xaxis.ticktext[0] == "bert-base-uncased"


def test_parallel_coordinates_have_full_names_and_the_most_important_parameters() -> None:
    record = StudyRecord(make_study(None, [make_trial(number, kinds=WIDE) for number in range(60)]), {})
    (figure,) = draw("parallel", record)
    labels = [label.replace("<br>", "") for label in figure.layout.xaxis.ticktext]
    assert labels == ["val_metric", *sorted(record.parameters[:MAX_AXES])]


@pytest.mark.parametrize("name", ["slices", "parallel"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_trials_and_single_values_are_drawn(name: str, count: int) -> None:
    kinds: dict[str, BaseDistribution] = {
        "a": CategoricalDistribution(["only"]),
        "model.optim.lr": KINDS["model.optim.lr"],
    }
    record = StudyRecord(make_study(None, [make_trial(number, kinds=kinds) for number in range(count)]), {})
    for figure in draw(name, record):
        assert len(figure.data) > 0


def test_timeline_has_every_started_trial_by_outcome(record: StudyRecord) -> None:
    (figure,) = draw("timeline", record)
    traces = _traces(figure)
    assert set(traces) == {"complete", "pruned", "failed", "running"}
    assert sum(len(trace.y) for trace in traces.values()) == 39
    assert traces["complete"].text[0] == "trial 0: complete, 1 min"


def test_outcomes_have_a_bar_for_each_outcome(record: StudyRecord) -> None:
    (figure,) = draw("outcomes", record)
    assert list(figure.data[0].y)[::-1][:2] == ["complete (25)", "pruned (11)"]
    assert sum(figure.data[0].x) == 40
