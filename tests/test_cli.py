import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from lightning_hpo import __version__
from lightning_hpo.cli import main
from lightning_hpo.storage.settings import StudySettings
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]

_HELP = """
import sys
from lightning_hpo.cli import main
main(["--help"])
print(sorted({"torch", "lightning", "optuna", "mlflow", "transformers", "jsonargparse"} & set(sys.modules)))
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")


def _errors(capsys: Captured) -> list[str]:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err.splitlines()


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_command(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "tune", "status", "report", "register", "ui", "demo-data"):
        assert f"\n  {command} " in shown


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", _HELP], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "lightning_hpo", "nothing"], check=False, capture_output=True)
    assert done.returncode == 2


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: Captured) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_unknown_command_is_refused_with_the_known_ones(capsys: Captured) -> None:
    assert main(["tuen"]) == 2
    [line] = _errors(capsys)
    assert line.startswith("error: tuen: no such command; there are: fit, validate, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["register"], "error: the following arguments are required: --study; see lightning-hpo register --help"),
        (
            ["register", "--study", "a", "--promote", "--no-promote"],
            "error: argument --no-promote: not allowed with argument --promote; see lightning-hpo register --help",
        ),
        (["ui", "--port", "high"], "error: argument --port: invalid int value: 'high'; see lightning-hpo ui --help"),
        (["status", "--stud", "a"], "error: unrecognized arguments: --stud a; see lightning-hpo status --help"),
    ],
)
def test_bad_flags_are_one_line(arguments: list[str], message: str, capsys: Captured) -> None:
    assert main(arguments) == 2
    assert _errors(capsys) == [message]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status"], "there is no database {}/_optuna/dataaug.db; tune a study first, or name another"),
        (["status", "--study", "first"], "there is no database {}/_optuna/dataaug.db; tune a study first, or name"),
        (["ui"], "error: --tracking_uri: there is no database {}/mlflow.db; tune a study first, or name another"),
        (["ui", "--tracking_uri", "http://me:secret@host"], "http://me:***@host is a server that has its own pages"),
        (["status", "--storage", "dataaug.db"], "'dataaug.db' is not a database URL"),
    ],
)
def test_missing_database_is_one_line_and_is_not_created(
    arguments: list[str], message: str, capsys: Captured, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        assert main(arguments) == 2
    [line] = _errors(capsys)
    assert message.format(tmp_path) in line
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "register"])
def test_help_masks_passwords_of_the_environment(
    command: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:secret%20@host/db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret%20@host")
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "postgresql://me:***@host/db" in shown
    assert "secret" not in shown


def test_status_of_all_studies_and_of_one(study: optuna.Study, storage_url: str, capsys: Captured) -> None:
    study.set_user_attr("agent", "criteria")
    study.set_user_attr("n_trials", 5)
    study.tell(study.ask(), 0.75)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    assert main(["status", "--storage", storage_url]) == 0
    [_, line] = capsys.readouterr().out.splitlines()
    assert line.split() == ["first", "criteria", "2", "0.7500"]
    assert main(["status", "--storage", storage_url, "--study", "first"]) == 0
    shown = capsys.readouterr().out
    for words in ("1 of 5", "1 complete, 1 failed", "0.7500 in trial 0"):
        assert words in shown


def test_status_of_a_missing_study(study: optuna.Study, storage_url: str, capsys: Captured, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        assert main(["status", "--storage", storage_url, "--study", "second"]) == 2
    [line] = _errors(capsys)
    assert line.endswith(f"there are: {study.study_name}")


def test_storage_comes_from_the_environment(
    study: optuna.Study, storage_url: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", storage_url)
    assert main(["status"]) == 0
    assert study.study_name in capsys.readouterr().out


def test_every_setting_of_a_study_is_a_flag_of_tune(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    shown = capsys.readouterr().out
    assert all(f"--study.{name.rstrip('_')} " in shown for name in vars(StudySettings()))


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_all_bad_input_of_a_training_is_reported(command: str, capsys: Captured, tmp_path: Path) -> None:
    flags = ["--model", "tests.foreign.ForeignModule", "--data", "tests.foreign.ForeignData"]
    with unchanged(tmp_path):
        assert main([command, *flags, "--model.lr", "fast", "--data.rowss", "3"]) == 2
    assert sorted(_errors(capsys)) == [
        "error: --data.rowss: there is no such flag; did you mean data.rows?",
        "error: --model.lr: Expected a float. Got value: fast",
    ]
    assert list(tmp_path.iterdir()) == []
