import atexit
import os
import shlex
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from lightning_hpo import __version__
from lightning_hpo.cli import main
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study import fork_server
from lightning_hpo.study.spec import StudySpec
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
    for command in ("fit", "predict", "tune", "status", "report", "register", "ui", "init", "demo-data"):
        assert f"\n  {command} " in shown


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", _HELP], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("arguments", "forked"), [(None, [True]), (["tune"], [False, True])])
def test_only_a_process_of_its_own_forks_the_server_of_the_trials(
    arguments: list[str] | None, forked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(fork_server, "start_server", lambda *, forked=False: started.append(forked))
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["lightning-hpo", "tune"])
    for name in ("PYTHONSAFEPATH", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        monkeypatch.setenv(name, "1")
    assert main(arguments) == 2
    assert started == forked  # one that runs already is kept


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


def test_stored_command_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[StudySpec] = []
    monkeypatch.setattr("lightning_hpo.tune.tune", lambda spec, _: started.append(spec))
    foreign = ["--model", "tests.foreign.ForeignModule", "--data", "tests.foreign.ForeignData"]
    url = "postgresql://me:it's a secret@host/db?sslpassword=secret&sslmode=require"
    main(
        ["tune", *foreign, "--study.name", "a", f"--study.storage={url}", "--study.tracking_uri", "http://secret@host"]
    )
    words = shlex.split(started[0].command)
    assert words[-3] == "--study.storage=postgresql://me:***@host/db?sslpassword=***&sslmode=require"
    assert words[-1] == "http://***@host"
    assert "secret" not in started[0].command


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


@pytest.mark.parametrize("arguments", [["tune"], ["status"], ["fit", "--help"], ["nothing"]])
def test_windows_is_refused_in_one_line(
    arguments: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(arguments) == 2
    assert _errors(capsys) == ["error: lightning-hpo: got Windows, which is not supported; use WSL 2"]


def test_modules_in_the_current_folder_replace_no_library(tmp_path: Path) -> None:
    for name in ("optuna", "sqlalchemy", "html", "grp"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    code = "from lightning_hpo.cli import main; import os; print(main(), os.environ['PYTHONSAFEPATH'])"
    # -P: as in a console script, the path begins with another folder than the current one.
    command = [sys.executable, "-P", "-c", code, "status"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "2 1\n"  # child processes get the variable: Python then leaves the current folder out
    assert "there is no database" in done.stderr


def test_class_paths_find_modules_in_the_current_folder(tmp_path: Path) -> None:
    assert main(["fit", "--model", "no_such_module.Model"]) == 2
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_ui_sends_no_telemetry_shows_no_password_and_warns_of_other_users(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, environment: started.append((command, environment)))
    secret = "postgresql://me:s3cret@host/db"
    for uri in (tracking_uri, secret):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert main(["ui", "--port", "5050"]) == 0
        command, environment = started.pop()
        assert command[1:] == ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", "5050"]
        assert environment["MLFLOW_BACKEND_STORE_URI"] == environment["MLFLOW_REGISTRY_STORE_URI"] == uri
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
        [line] = _errors(capsys)
        assert line.startswith("the pages have no login: each user of this machine can")


def test_telemetry_is_off_before_mlflow_is_imported() -> None:
    code = "import lightning_hpo, os, sys; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], 'mlflow' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=clean)
    assert done.stdout == "true False\n"


def test_register_refuses_another_registry(
    tracking_uri: str, storage_url: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "postgresql://me:s3cret@host/registry")
    assert main(["register", "--study", "a", "--storage", storage_url, "--tracking_uri", tracking_uri]) == 2
    [line] = _errors(capsys)
    assert line.startswith(
        "error: MLFLOW_REGISTRY_URI: got postgresql://me:***@host/registry, but models are registered"
    )


def test_init_writes_all_configs_and_overwrites_none(tmp_path: Path, capsys: Captured) -> None:
    assert main(["init", "my study"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:3] == ["  cd 'my study'", "  lightning-hpo demo-data demo/data"]
    root = Path(__file__).parent.parent / "configs"
    wanted = {path.relative_to(root): path.read_bytes() for path in root.rglob("*.yaml")}
    written = tmp_path / "my study/configs"
    assert {path.relative_to(written): path.read_bytes() for path in written.rglob("*.yaml")} == wanted
    for path in written.rglob("*.yaml"):
        if path.name != "evidence.yaml":
            path.unlink()
    (written / "evidence.yaml").write_text("mine")
    assert main(["init", "my study"]) == 2
    assert _errors(capsys) == [
        "error: init: my study/configs/evidence.yaml exists, and nothing was written; name another folder"
    ]
    assert [path.read_text() for path in written.rglob("*.yaml")] == ["mine"]


def test_init_says_where_it_cannot_write(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").touch()
    assert main(["init", "file"]) == 2
    assert _errors(capsys) == ["error: init: cannot write in file: Not a directory; name another folder"]


def test_home_folder_is_expanded(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///~/studies.db")
    assert main(["status"]) == 2
    assert f"there is no database {tmp_path}/home/studies.db;" in _errors(capsys)[0]
    assert main(["ui", "--tracking_uri=sqlite:///~/mlflow.db"]) == 2
    assert f"there is no database {tmp_path}/home/mlflow.db;" in _errors(capsys)[0]
    assert main(["init", "~"]) == 0
    assert (tmp_path / "home/configs/criteria.yaml").is_file()
