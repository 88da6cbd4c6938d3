import math
from typing import Literal

import optuna
import pytest

from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.objective import Objective, comparable_baselines, known_mode, score_text

HIGHER, LOWER = Objective("val_metric", "max"), Objective("val_loss", "min")


@pytest.mark.parametrize(("objective", "better", "worse"), [(HIGHER, 0.9, 0.2), (LOWER, 0.2, 0.9)])
def test_values_are_compared_in_the_direction_of_the_objective(
    objective: Objective, better: float, worse: float
) -> None:
    assert objective.is_better(better, worse)
    assert not objective.is_better(worse, better)
    assert not objective.is_better(better, better)
    assert objective.gain(better, worse) == pytest.approx(0.7)
    assert objective.best([worse, better, worse]) == better
    assert sorted([worse, better], key=objective.sort_key) == [better, worse]


@pytest.mark.parametrize("objective", [HIGHER, LOWER])
def test_nan_is_never_better_and_never_beaten(objective: Objective) -> None:
    assert not objective.is_better(math.nan, 0.5)
    assert not objective.is_better(0.5, math.nan)


@pytest.mark.parametrize(("direction", "mode"), [("maximize", "max"), ("minimize", "min")])
def test_the_objective_of_a_study_is_read_from_its_direction_and_attributes(
    direction: Literal["maximize", "minimize"], mode: str
) -> None:
    study = optuna.create_study(direction=direction)
    assert Objective.of(study).monitor == "score"
    study.set_user_attr("monitor", "val_metric")
    objective = Objective.of(study)
    assert (objective.monitor, objective.mode, objective.direction) == ("val_metric", mode, direction)


def test_a_study_with_several_objectives_is_refused() -> None:
    study = optuna.create_study(study_name="two", directions=["maximize", "minimize"])
    with pytest.raises(InputError, match=r"^two: the study has 2 objectives; use a study with one$"):
        Objective.of(study)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.56789, "0.5679"),
        (0.0, "0.0000"),
        (0.00042, "0.00042"),
        (-3.21e-7, "-3.21e-07"),
        (1.5, "1.5000"),
        (2.5e9, "2.5e+09"),
    ],
)
def test_small_scores_keep_their_digits(value: float, text: str) -> None:
    assert score_text(value) == text


def test_a_difference_has_its_sign() -> None:
    assert (score_text(0.01, sign=True), score_text(2e-5, sign=True)) == ("+0.0100", "+2e-05")


@pytest.mark.parametrize(
    ("monitor", "minimized", "mode"),
    [
        ("val_metric", None, "max"),
        ("val_loss", None, "min"),
        ("val/loss_epoch", None, "min"),
        ("val_error", None, None),
        ("val_loss_scale", None, None),
        ("val_metric", ["val_metric"], "min"),
        ("val_error", ["val_error"], "min"),
        ("val_loss", [], "max"),
    ],
)
def test_mode_of_a_metric_is_declared_or_known_by_its_name(
    monitor: str, minimized: list[str] | None, mode: str | None
) -> None:
    assert known_mode(monitor, minimized) == mode


def test_baselines_are_compared_with_their_own_metric_only() -> None:
    baselines = {"never met": 0.4}
    assert comparable_baselines({"constant_answers": baselines, "monitor": "val_metric"}) == baselines
    assert comparable_baselines({"constant_answers": baselines, "monitor": "val_loss"}) == {}
