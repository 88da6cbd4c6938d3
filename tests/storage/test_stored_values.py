"""Values of Optuna's database that `tune` has not written."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_hpo.cli import main
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, TrialKey
from lightning_hpo.storage.stored_values import require_readable, stored_problem

_WRONG: list[Any] = [None, [], {"a": {}}, "text", -1.5, "\ud800", {"\ud800": 1}, [["\ud800"]], True, {"a": None}, 2**70]


@pytest.mark.parametrize("keys", [StudyKey, TrialKey])
def test_no_attribute_ends_a_command_with_a_traceback(
    study: optuna.Study, storage_url: str, tracking_uri: str, capsys: pytest.CaptureFixture[str], keys: type
) -> None:
    about = {"agent": "criteria", "monitor": "val_metric", "mode": "max", "outdir": "outputs/first", "n_trials": 3}
    for name, value in about.items():
        study.set_user_attr(name, value)
    study.add_trial(optuna.create_trial(value=1.0))
    [trial] = study.trials
    set_attribute = study.set_user_attr
    where = ["--storage", storage_url, "--tracking_uri", tracking_uri]
    commands = [["status", "--study", "first", "--storage", storage_url], ["reconcile", *where]]
    commands += [["reproduce", "first", *where]]
    database = sqlite3.connect(storage_url.removeprefix("sqlite:///"), isolation_level=None)
    for turn, key in enumerate(value for name, value in vars(keys).items() if name.isupper()):
        wrong = _WRONG[turn % len(_WRONG)]
        if keys is StudyKey:
            set_attribute(key, wrong)
        else:
            row = (trial._trial_id, key, json.dumps(wrong))
            database.execute("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)
        for command in commands:
            capsys.readouterr()
            assert main(command) in (0, 1, 2), (command, key, wrong)
            assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]) <= 1
        if keys is StudyKey:
            set_attribute(key, about.get(key))
            database.execute("DELETE FROM study_user_attributes WHERE value_json = 'null'")
        else:
            database.execute("DELETE FROM trial_user_attributes")
    database.close()


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("UPDATE study_user_attributes SET value_json = '{'", "cannot be read"),
        ("UPDATE trial_params SET distribution_json = '[]'", "cannot be read"),
        ("UPDATE study_user_attributes SET value_json = CAST(x'22ff22' AS TEXT)", "Could not decode"),
        ("UPDATE trial_params SET param_name = CAST(x'ff' AS TEXT)", "Could not decode"),
        ("UPDATE studies SET study_name = CAST(x'ff' AS TEXT)", ""),
    ],
)
def test_database_that_others_have_changed_is_refused_in_a_line(
    study: optuna.Study,
    storage_url: str,
    tracking_uri: str,
    capsys: pytest.CaptureFixture[str],
    statement: str,
    shown: str,
) -> None:
    study.set_user_attr("agent", "criteria")
    study.add_trial(
        optuna.create_trial(
            value=1.0, params={"lr": 0.1}, distributions={"lr": optuna.distributions.FloatDistribution(0, 1)}
        )
    )
    with sqlite3.connect(storage_url.removeprefix("sqlite:///")) as connection:
        connection.execute(statement)
    connection.close()
    where = ["--storage", storage_url, "--tracking_uri", tracking_uri]
    for command in (
        ["status", "--study", "first", "--storage", storage_url],
        ["status", "--storage", storage_url],
        ["reconcile", *where],
        ["report", "first", *where],
        ["reproduce", "first", *where],
        ["import-study", "--from", storage_url, "--storage", f"{storage_url}.copy"],
    ):
        code = main(command)
        error = capsys.readouterr().err
        assert code in (0, 2), command
        assert code == 0 or (len(error.splitlines()) == 1 and shown in error)


def test_attributes_of_tune_are_accepted(study: optuna.Study) -> None:
    study.set_user_attr(StudyKey.SPLIT_SIZES, {"train": {"posts": 3, "positives": {"FATIGUE": 1}}})
    study.set_user_attr(StudyKey.DATA_FINGERPRINT, None)
    study.set_user_attr(StudyKey.LEASE, None)
    require_readable(study)


def test_problem_names_the_attribute(study: optuna.Study) -> None:
    study.set_user_attr(StudyKey.N_TRIALS, "many")
    with pytest.raises(InputError, match="first: in Optuna's database, n_trials is 'many'"):
        require_readable(study)
    assert "trial 4, runtime_s" in stored_problem("first", {TrialKey.RUNTIME: []}, trial=4)


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "x\udcff"],
        ["tune", "--config", "\udcff.yaml"],
        ["init", "\udcff"],
        ["import-study", "--from", "sqlite:///\udcff"],
        ["report", "first", "--output", "\ud800"],
        ["forget", "\ud800"],
    ],
)
def test_argument_that_is_not_utf_8_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "is not UTF-8" in line
    assert "argument" in line


def test_folder_and_environment_that_are_not_utf_8_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///\udcff.db")
    assert main(["status"]) == 2
    assert capsys.readouterr().err.startswith("error: OPTUNA_STORAGE: ")
    monkeypatch.delenv("OPTUNA_STORAGE")
    (tmp_path / "\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "\udcff")
    assert main(["status"]) == 2
    assert capsys.readouterr().err.startswith("error: current folder: ")


def test_json_of_a_lone_surrogate_is_no_text() -> None:
    assert "cannot be encoded" in stored_problem("first", {"note": json.loads('"\\ud800"')})


def test_names_in_the_database_are_no_paths(
    study: optuna.Study,
    storage_url: str,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    where = ["--storage", storage_url, "--tracking_uri", tracking_uri]
    optuna.create_study(study_name="../other", storage=storage_url)
    assert main(["report", "../other", *where]) == 2
    assert "--output: required" in capsys.readouterr().err
    study.set_user_attr("agent", "../../elsewhere/criteria")
    study.set_user_attr("outdir", "outputs/first")
    assert main(["report", "first", *where]) == 0
    assert "not logged to MLflow" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} >= {"inside", "mlflow.db", "optuna.db"}
    assert not (tmp_path.parent / "elsewhere").exists()
    assert not list(tmp_path.rglob("*-first"))
