import pytest
from optuna.trial import TrialState

from lightning_hpo.report.cost import cost, pruning, savings
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.tracking.tracker import Run
from tests.report.studies import all_outcomes, make_study, make_trial


def _record(runs: dict[int, Run] | None = None) -> StudyRecord:
    """Trial 0: complete, 8 epochs, 80 s. Trial 1: pruned after 2 epochs, 20 s."""
    return StudyRecord(make_study(None, [make_trial(0), make_trial(1, TrialState.PRUNED)]), runs or {})


def test_savings_are_the_epochs_not_trained_times_seconds_per_epoch() -> None:
    epochs, seconds = savings(_record())
    assert epochs == 6
    assert seconds == pytest.approx(60.0)
    rows = {row[0]: row[1] for row in pruning(_record()).rows}
    assert rows["pruned trials"] == "1"
    assert rows["time saved"] == "1 min"
    assert rows["share of the cost without pruning"] == "38%"  # 60 of 80 + 20 + 60


def test_planned_epochs_come_from_the_config_and_startup_is_excluded() -> None:
    params = {"trainer.max_epochs": "20", "trainer.check_val_every_n_epoch": "2"}
    epochs, seconds = savings(_record({1: Run("1", "KILLED", {}, params, {"startup_s": 4.0})}))
    assert epochs == 8
    assert seconds == pytest.approx(8 * 8.0)


@pytest.mark.parametrize("startup", [float("nan"), float("inf"), float("-inf"), -1e308])
def test_startup_that_cannot_be_is_left_out(startup: float) -> None:
    assert savings(_record({1: Run("1", "KILLED", {}, {}, {"startup_s": startup})}))[1] == pytest.approx(60.0)


@pytest.mark.parametrize("every", ["0", "00", "\u00b2", "", "9" * 5000])
def test_validation_interval_that_is_no_number_is_left_out(every: str) -> None:
    params = {"trainer.max_epochs": "20", "trainer.check_val_every_n_epoch": every}
    assert savings(_record({1: Run("1", "KILLED", {}, params)}))[0] == 6


@pytest.mark.parametrize("epochs", ["-1", "None", "\u00b2", "9" * 5000])
def test_without_max_epochs_the_longest_trial_counts(epochs: str) -> None:
    assert savings(_record({1: Run("1", "KILLED", {}, {"trainer.max_epochs": epochs})}))[0] == 6


def test_without_pruned_trials_the_caption_says_so() -> None:
    table = pruning(StudyRecord(make_study(None, [make_trial(0)]), {}))
    assert (table.rows, table.caption) == ((), "No trial was pruned.")


def test_cost_by_outcome_adds_up_to_the_total() -> None:
    record = StudyRecord(make_study(None, all_outcomes()), {})
    rows = {row[0]: row for row in cost(record).rows}
    assert set(rows) == {"complete", "pruned", "failed", "running", "paused", "all"}
    assert int(rows["all"][1]) == 40
    assert sum(int(row[4]) for name, row in rows.items() if name != "all") == int(rows["all"][4])
    assert "2026-01-02 03:04" in cost(record).caption


def test_empty_study_has_no_cost() -> None:
    assert cost(StudyRecord(make_study(None, []), {})).caption == "The study has no trials."
