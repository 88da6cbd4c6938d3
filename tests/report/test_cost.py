import pytest
from optuna.trial import TrialState

from lightning_hpo.report.savings import cost, pruning, saving
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.tracking.tracker import Run
from tests.report.studies import every_ending, make_study, make_trial


def _record(runs: dict[int, Run] | None = None) -> StudyRecord:
    """Trial 0 is complete: 8 epochs, 80 s; trial 1 was pruned after 2 epochs, 20 s."""
    return StudyRecord(make_study(None, [make_trial(0), make_trial(1, TrialState.PRUNED)]), runs or {})


def test_pruning_saves_the_epochs_that_were_not_trained_at_the_trial_s_own_pace() -> None:
    found = saving(_record())
    assert (found.trials, found.epochs) == (1, 6)
    assert found.seconds == pytest.approx(60.0)
    rows = {row[0]: row[1] for row in pruning(_record()).rows}
    assert rows["time saved"] == "1 min"
    assert rows["share of what it all would have cost"] == "38%"  # 60 of 80 + 20 + 60


def test_epochs_come_from_the_config_and_the_start_is_not_saved() -> None:
    params = {"trainer.max_epochs": "20", "trainer.check_val_every_n_epoch": "2"}
    found = saving(_record({1: Run("1", "KILLED", {}, params, {"startup_s": 4.0})}))
    assert found.epochs == 8
    assert found.seconds == pytest.approx(8 * 8.0)


@pytest.mark.parametrize("epochs", ["-1", "None"])
def test_training_without_an_end_counts_as_the_longest_trial(epochs: str) -> None:
    assert saving(_record({1: Run("1", "KILLED", {}, {"trainer.max_epochs": epochs})})).epochs == 6


def test_without_pruned_trials_there_are_words() -> None:
    table = pruning(StudyRecord(make_study(None, [make_trial(0)]), {}))
    assert (table.rows, table.says) == ((), "No trial was pruned.")


def test_the_cost_sums_to_all() -> None:
    record = StudyRecord(make_study(None, every_ending()), {})
    rows = {row[0]: row for row in cost(record).rows}
    assert set(rows) == {"complete", "pruned", "failed", "running", "parked", "all"}
    assert int(rows["all"][1]) == 40
    assert sum(int(row[4]) for name, row in rows.items() if name != "all") == int(rows["all"][4])
    assert "2026-01-02 03:04" in cost(record).says


def test_an_empty_study_has_cost_nothing() -> None:
    assert cost(StudyRecord(make_study(None, []), {})).says == "Nothing has been trained."
