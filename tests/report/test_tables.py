from pathlib import Path

import pytest
from optuna.trial import TrialState

from lightning_hpo.report import tables
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.report.table import Table
from lightning_hpo.tracking.tracker import Run
from tests.report.studies import ABOUT, KINDS, every_ending, make_study, make_trial


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    return StudyRecord(make_study(None, every_ending(), ABOUT | {"outdir": str(tmp_path / "my outputs")}), {})


def _rows(table: Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: tuple(row[1:]) for row in table.rows}


def test_the_summary_compares_the_best_with_the_best_constant_answer(record: StudyRecord) -> None:
    rows = _rows(tables.summary(record))
    best = record.study.best_trial
    assert rows["best"] == (f"{best.value:.4f} in trial {best.number}",)
    assert rows["ahead of the best constant answer"] == (f"{(best.value or 0) - 0.4242:+.4f} (always met: 0.4242)",)
    assert rows["done"] == ("36 of 40 trials",)
    assert rows["score"] == ("val_metric; more is better",)


def test_the_winner_comes_with_the_command_that_trains_it_again(record: StudyRecord, tmp_path: Path) -> None:
    number = record.study.best_trial.number
    config = tmp_path / "my outputs" / f"trial_{number}" / "config.yaml"
    table = tables.winner(record)
    assert table.command == f"lightning-hpo fit --config '{config}'"
    assert "is not on this machine" in table.says
    config.parent.mkdir(parents=True)
    config.write_text("")
    assert "is not on this machine" not in tables.winner(record).says
    rows = _rows(table)
    assert set(rows) == set(KINDS)
    assert rows["model.optim.lr"] == (
        f"{record.study.best_params['model.optim.lr']:.6g}",
        "5e-06 to 0.0003, logarithmic",
    )
    assert rows["model.head.layers"][1] == "1 to 4"
    assert rows["aug.enabled"][1] == "True, False"


def test_a_winner_that_learned_nothing_is_called_so() -> None:
    study = make_study(None, [make_trial(0, collapsed=True)])
    assert "it has learned nothing" in tables.winner(StudyRecord(study, {})).says


def test_a_study_from_elsewhere_has_no_command() -> None:
    table = tables.winner(StudyRecord(make_study(None, [make_trial(0)], {}), {}))
    assert table.command == ""
    assert "not trained here" in table.says


def test_what_is_not_recorded_is_said() -> None:
    record = StudyRecord(make_study(None, [], {}), {})
    for table in (tables.winner(record), tables.constants(record), tables.data(record), tables.environment(record)):
        assert table.rows in ((), [])
        assert table.says.endswith(".")
    assert _rows(tables.summary(record))["agent"] == ("not recorded",)


def test_constant_answers_and_who_gives_them(record: StudyRecord) -> None:
    table = tables.constants(record)
    assert _rows(table) == {"always met": ("0.4242",), "never met": ("0.0000",)}
    assert "1 of the 25 complete trials give one answer" in table.says


def test_counts_of_the_data_and_their_fingerprint(record: StudyRecord) -> None:
    assert _rows(tables.data(record)) == {
        "posts": ("1484",),
        "evidence sentences not found in their post": ("1",),
        "fingerprint of data and split": ("5f1e",),
    }


def test_the_environment_is_what_the_runs_say_and_tells_where_they_differ() -> None:
    tags = {"version.torch": "2.13.0", "mlflow.source.git.commit": "abc", "device": "cpu", "data_counts": "posts 1"}
    runs = {number: Run(str(number), "FINISHED", tags) for number in range(3)}
    runs[3] = Run("3", "FINISHED", tags | {"device": "H200"})
    record = StudyRecord(make_study(None, [make_trial(number) for number in range(4)]), runs)
    assert tables.environment(record).rows == [
        ("device", "cpu", "3"),
        ("device", "H200", "1"),
        ("git commit", "abc", "4"),
        ("torch", "2.13.0", "4"),
    ]


def test_trials_that_train_have_no_winner() -> None:
    record = StudyRecord(make_study(None, [make_trial(0, TrialState.RUNNING)]), {})
    assert tables.winner(record).says == "No trial is complete, so there is no winner."
