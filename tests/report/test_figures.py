import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from lightning_hpo.report.figures import MAX_AXES, MAX_LINES, Figure, curves, figures, wrap
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import KINDS, WIDE, all_outcomes, make_study, make_trial


def _figures(study: optuna.Study) -> dict[str, Figure]:
    return figures(StudyRecord(study, {}))


@pytest.mark.parametrize(
    ("trials", "kinds", "reason"),
    [
        (0, KINDS, "the study has 0"),
        (1, KINDS, "the study has 1"),
        (6, {}, "have no parameters"),
        (6, {"model.optim.lr": KINDS["model.optim.lr"]}, "model.optim.lr is the only parameter"),
        (6, {name: CategoricalDistribution(["same"]) for name in ("a", "b")}, "do not distinguish the parameters"),
    ],
)
def test_caption_explains_missing_importances(trials: int, kinds: dict[str, BaseDistribution], reason: str) -> None:
    figure = _figures(make_study(None, [make_trial(number, kinds=kinds) for number in range(trials)]))["importance"]
    assert not figure.drawn
    assert reason in figure.caption


def test_importances_of_few_trials_are_called_a_hint() -> None:
    assert "only a hint" in _figures(make_study(None, all_outcomes()))["importance"].caption
    many = make_study(None, [make_trial(number) for number in range(50)])
    assert "only a hint" not in _figures(many)["importance"].caption


@pytest.mark.parametrize("name", ["history", "curves", "importance", "slices", "parallel"])
def test_caption_explains_missing_scores(name: str) -> None:
    for trials in ([], [make_trial(0, TrialState.FAIL)]):
        figure = _figures(make_study(None, trials))[name]
        assert not figure.drawn
        assert figure.caption.endswith(".")


@pytest.mark.parametrize("name", ["slices", "parallel"])
def test_caption_explains_missing_parameters(name: str) -> None:
    figure = _figures(make_study(None, [make_trial(0, kinds={})]))[name]
    assert (figure.drawn, figure.caption) == (False, "The trials have no parameters.")


def test_caption_explains_an_empty_study() -> None:
    found = _figures(make_study(None, []))
    assert not any(figure.drawn for figure in found.values())
    assert found["outcomes"].caption == "The study has no trials."
    assert found["timeline"].caption == "No trial has started."


def test_caption_states_how_many_lines_are_drawn() -> None:
    study = make_study(None, [make_trial(number, kinds=WIDE) for number in range(MAX_LINES + 50)])
    found = _figures(study)
    for name in ("curves", "parallel"):
        assert f"{MAX_LINES} of the {MAX_LINES + 50} trials are drawn" in found[name].caption
    assert f"Only the {MAX_AXES} most important parameters" in found["parallel"].caption


def test_outcomes_are_listed_in_the_caption() -> None:
    assert _figures(make_study(None, all_outcomes()))["outcomes"].caption == (
        "25 complete, 11 pruned, 1 failed: out of memory, 1 failed: train_loss is nan at epoch 1, 1 running, 1 paused."
    )


def test_failed_and_paused_trials_have_no_curve() -> None:
    record = StudyRecord(make_study(None, all_outcomes()), {})
    assert {trial.state for trial in curves(record)} == {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.RUNNING,
    }


def test_labels_are_broken_after_separators_and_complete() -> None:
    assert wrap("google/electra-large-discriminator", 22) == ["google/electra-large-", "discriminator"]
    assert wrap("trainer.accumulate_grad_batches", 18) == ["trainer.", "accumulate_grad_", "batches"]
    assert wrap("short", 22) == ["short"]
    assert wrap("", 22) == [""]
    for text in ("x" * 50, "/".join("abc" * 20), "a" * 40 + " [swap, delete] __"):
        assert "".join(wrap(text, 22)) == text
