from optuna.trial import TrialState

from lightning_hpo.report.outcomes import COLORS, NAMES, count_outcomes
from tests.report.studies import all_outcomes, make_trial


def test_outcomes_are_counted_and_failed_trials_by_reason() -> None:
    assert [(each.label, each.count) for each in count_outcomes(all_outcomes())] == [
        ("complete", 25),
        ("pruned", 11),
        ("failed: out of memory", 1),
        ("failed: train_loss is nan at epoch 1", 1),
        ("running", 1),
        ("paused", 1),
    ]


def test_rare_reasons_are_added_up() -> None:
    trials = [make_trial(number, TrialState.FAIL, ended_by=f"reason {number}") for number in range(20)]
    counts = count_outcomes(trials)
    assert len(counts) == 9
    assert (counts[-1].label, counts[-1].count) == ("failed: other reasons", 12)


def test_every_state_has_a_name_and_a_color() -> None:
    assert set(NAMES) == set(COLORS) == set(TrialState)


def test_failed_trial_without_a_reason_is_counted() -> None:
    (count,) = count_outcomes([make_trial(0, TrialState.FAIL)])
    assert count.label == "failed: no reason recorded"


def test_empty_study_has_no_outcomes() -> None:
    assert count_outcomes([]) == []
