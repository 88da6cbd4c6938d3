from pathlib import Path

import pytest
from optuna.trial import TrialState

from lightning_hpo.report import tables
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.tracking.tracker import Run
from tests.report.studies import ABOUT, KINDS, all_outcomes, make_study, make_trial


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    return StudyRecord(make_study(None, all_outcomes(), ABOUT | {"outdir": str(tmp_path / "my outputs")}), {})


def _rows(table: tables.Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: tuple(row[1:]) for row in table.rows}


def test_summary_compares_the_best_trial_with_the_best_baseline(record: StudyRecord) -> None:
    rows = _rows(tables.summary(record))
    best = record.study.best_trial
    assert rows["best trial"] == (f"trial {best.number}, {best.value:.4f}",)
    assert rows["lead over the best baseline"] == (f"{(best.value or 0) - 0.4242:+.4f} (always met: 0.4242)",)
    assert rows["finished trials"] == ("36 of 40",)
    assert rows["metric"] == ("val_metric (higher is better)",)


def test_summary_of_a_refit_names_its_registered_models() -> None:
    models = {"soup": {"seeds": [20, 18], "value": 0.72134}}
    study = make_study(None, [make_trial(0)], ABOUT | {"refit_models": models})
    assert _rows(tables.summary(StudyRecord(study, {})))["soup"] == ("seeds 20, 18, 0.7213",)


def test_best_trial_comes_with_the_command_that_retrains_it(record: StudyRecord, tmp_path: Path) -> None:
    number = record.study.best_trial.number
    config = tmp_path / "my outputs" / f"trial_{number}" / "config.yaml"
    table = tables.best_trial(record)
    assert table.command == f"lightning-hpo fit --config '{config}'"
    assert "is not on this machine" in table.caption
    config.parent.mkdir(parents=True)
    config.write_text("")
    assert "is not on this machine" not in tables.best_trial(record).caption
    rows = _rows(table)
    assert set(rows) == set(KINDS)
    assert rows["model.optim.lr"] == (
        f"{record.study.best_params['model.optim.lr']:.6g}",
        "5e-06 to 0.0003, logarithmic",
    )
    assert rows["model.head.layers"][1] == "1 to 4"
    assert rows["aug.enabled"][1] == "True, False"


def test_collapsed_best_trial_is_called_out() -> None:
    study = make_study(None, [make_trial(0, collapsed=True)])
    assert "it has learned nothing" in tables.best_trial(StudyRecord(study, {})).caption


def test_imported_study_has_no_command() -> None:
    table = tables.best_trial(StudyRecord(make_study(None, [make_trial(0)], {}), {}))
    assert table.command == ""
    assert "not trained by `tune`" in table.caption


def test_caption_names_what_is_not_recorded() -> None:
    record = StudyRecord(make_study(None, [], {}), {})
    for make in (tables.best_trial, tables.baselines, tables.splits, tables.data, tables.environment):
        table = make(record)
        assert table.rows in ((), [])
        assert table.caption.endswith(".")
    assert _rows(tables.summary(record))["agent"] == ("not recorded",)


def test_baselines_and_the_number_of_collapsed_trials(record: StudyRecord) -> None:
    table = tables.baselines(record)
    assert _rows(table) == {"always met": ("0.4242",), "never met": ("0.0000",)}
    assert "1 of 25 complete trials predict the same" in table.caption


def test_data_has_counts_and_fingerprint(record: StudyRecord) -> None:
    assert _rows(tables.data(record)) == {
        "posts": ("1484",),
        "evidence sentences not found in their post": ("1",),
        "fingerprint of data and split": ("5f1e",),
    }


def test_splits_have_posts_and_positives_by_criterion(record: StudyRecord) -> None:
    table = tables.splits(record)
    assert table.head == ("", "train", "val", "test")
    assert _rows(table) == {
        "posts": ("1038", "223", "223"),
        "positives": ("1000", "215", "214"),
        "FATIGUE": ("900", "200", "199"),
        "PSYCHOMOTOR": ("100", "15", "15"),
    }
    assert "--data.split_rule stratified" in table.caption


def test_environment_lists_the_tags_of_the_runs_with_their_differences() -> None:
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


def test_running_trials_have_no_best_trial() -> None:
    record = StudyRecord(make_study(None, [make_trial(0, TrialState.RUNNING)]), {})
    assert tables.best_trial(record).caption == "No trial is complete."
