import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.cli import main
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.report.status import print_status
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.study.lock import lock_study

Captured = pytest.CaptureFixture[str]

KEYS = [
    *("study", "agent", "monitor", "done", "total", "best", "split_sizes", "constant_answers"),
    *("models", "endings", "failures"),
    *("collapsed", "seconds_a_trial", "seconds_left", "running", "interrupted", "tuned_by", "started_from", "outdir"),
    "next",
]


@pytest.fixture
def tuned(study: optuna.Study, tmp_path: Path) -> optuna.Study:
    """A study like those of `tune`: one complete trial, one out of memory, one running for two minutes."""
    about = {
        "agent": "criteria",
        "monitor": "val_metric",
        "n_trials": 4,
        "workers": 1,
        "epochs": 10,
        "split_sizes": {"val": {"posts": 9, "positives": {"SAD": 4, "TIRED": 1}}},
        "outdir": str(tmp_path / "outputs/first"),
        "command": "lightning-hpo tune --config a.yaml --study.name first --study.fix '[x]'",
        "started_from": {"study": "before"},
        "constant_answers": {"always met": 0.25},
    }
    for key, value in about.items():
        study.set_user_attr(key, value)
    trial = study.ask()
    trial.set_user_attr(TrialKey.RUNTIME, 300.0)
    study.tell(trial, 0.75)
    trial = study.ask()
    trial.set_user_attr("ended_by", "out of memory")
    study.tell(trial, state=TrialState.FAIL)
    trial = study.ask()
    trial.report(0.5, 0)
    trial.report(0.6, 1)
    worker = {"host": "box", "pid": 77, "since": time.time() - 120, "device": "Card", "device_index": "1"}
    trial.set_user_attr(TrialKey.WORKER, worker)
    return study


@pytest.fixture
def hostile(storage_url: str) -> optuna.Study:
    """A study of somebody who may write the database, too."""
    study = optuna.create_study(study_name="it's\x1b[2J", storage=storage_url)
    for key, value in {"agent": "a\x1b[31m", "monitor": "m\x1b]0;x\x07", "n_trials": 9, "outdir": "/none\x1b"}.items():
        study.set_user_attr(key, value)
    trial = study.ask()
    trial.set_user_attr("ended_by", "boom\x1b[2J")
    study.tell(trial, state=TrialState.FAIL)
    trial = study.ask()
    trial.set_user_attr(TrialKey.WORKER, {"host": "h\x1b", "pid": "1\x1b", "device": "d\x1b", "since": None})
    return study


def test_control_characters_of_the_database_do_not_reach_the_terminal(
    hostile: optuna.Study, storage_url: str, capsys: Captured
) -> None:
    for name in (None, hostile.study_name):
        print_status(name, DatabaseUrl(storage_url, "--storage"))
        shown = capsys.readouterr().out
        assert r"it's\x1b[2J" in shown
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert main(["status", "--study", "other", "--storage", storage_url]) == 2
    assert r"there are: it's\x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("lightning-hpo tune --config 'a b.yaml'", "lightning-hpo tune --config 'a b.yaml'"),
        ("lightning-hpo tune --x postgresql://me:***@host", "lightning-hpo tune --x 'postgresql://me:***@host'"),
        ("lightning-hpo tune ; rm -r ~", "lightning-hpo tune ';' rm -r '~'"),
        ("lightning-hpo tune $(rm -r ~)", "lightning-hpo tune '$(rm' -r '~)'"),
        ("rm -r ~", "the same `lightning-hpo tune` command"),
        ("lightning-hpo tune 'a", "the same `lightning-hpo tune` command"),
        ("", "the same `lightning-hpo tune` command"),
    ],
)
def test_only_one_command_of_this_program_is_shown_as_the_next_step(
    hostile: optuna.Study, storage_url: str, capsys: Captured, command: str, shown: str, tmp_path: Path
) -> None:
    hostile.set_user_attr("outdir", str(tmp_path))
    hostile.set_user_attr("command", command)
    assert _json(hostile.study_name, storage_url, capsys)["next"] == f"resume the study: {shown}"


def _json(name: str | None, url: str, capsys: Captured) -> Any:
    print_status(name, DatabaseUrl(url, "--storage"), as_json=True)
    return json.loads(capsys.readouterr().out)


def test_table_shows_progress_running_trials_and_the_next_step(
    tuned: optuna.Study, storage_url: str, capsys: Captured
) -> None:
    Path(tuned.user_attrs["outdir"]).mkdir(parents=True)
    print_status("first", DatabaseUrl(storage_url, "--storage"))
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "study first (criteria, val_metric)",
        "started from before",
        "done 1 of 4",
        "outcomes 1 complete, 1 failed, 1 running",
        "failed 1: out of memory",
        "best 0.7500 in trial 0",
        "split val 9 posts with 5 positives",
        "baseline: always met 0.2500",
        "time per trial 5 min",
        "time left about 13 min",
        "next resume the study: lightning-hpo tune --config a.yaml --study.name first --study.fix '[x]'",
        "trial 2 2 of 10 done 2 min Card 1 77 on box 2 min ago",
        "1 failed - 0 - out of memory",
        "2 running 0.6000 2 -",
    ):
        assert line in shown, shown


def test_json_has_the_same_values_under_stable_keys(tuned: optuna.Study, storage_url: str, capsys: Captured) -> None:
    found = _json("first", storage_url, capsys)
    assert list(found) == KEYS
    assert found["endings"] == {"complete": 1, "pruned": 0, "failed": 1, "running": 1, "parked": 0}
    assert found["failures"] == {"out of memory": 1}
    assert found["best"] == {"trial": 0, "value": 0.75}
    assert found["split_sizes"] == {"val": {"posts": 9, "positives": {"SAD": 4, "TIRED": 1}}}
    assert (found["done"], found["total"], found["seconds_a_trial"]) == (1, 4, 300.0)
    assert found["seconds_left"] == pytest.approx(3 * 300 - 120, abs=5)
    [running] = found["running"]
    assert {key: running[key] for key in ("trial", "epoch", "epochs", "device", "device_index", "pid", "host")} == {
        "trial": 2, "epoch": 2, "epochs": 10, "device": "Card", "device_index": "1", "pid": 77, "host": "box",
    }  # fmt: skip


def test_last_sign_of_life_is_that_of_the_trials_process(
    tuned: optuna.Study, storage_url: str, capsys: Captured
) -> None:
    folder = Path(tuned.user_attrs["outdir"])
    worker = {"host": socket.gethostname(), "pid": 77, "since": time.time() - 7200}
    tuned._storage.set_trial_user_attr(tuned.trials[2]._trial_id, TrialKey.WORKER, worker)
    file = folder / "trial_2/sign_of_life"
    file.parent.mkdir(parents=True)
    for ago, shown, step in (
        (12, r"\d\d s ago", "nothing: process "),
        (840, "14 min ago", "trial 2 has given no sign"),
    ):
        file.touch()
        os.utime(file, (time.time() - ago,) * 2)
        with lock_study(folder):
            code = "import sys; from lightning_hpo.cli import main; main(['status', '--study', 'first', *sys.argv[1:]])"
            command = [sys.executable, "-c", code, "--storage", storage_url]
            table, found = (
                subprocess.run([*command, *flags], check=True, capture_output=True, text=True).stdout
                for flags in ((), ("--json",))
            )
        assert re.search(f"77 on {re.escape(socket.gethostname())} {shown}", " ".join(table.split()))
        assert json.loads(found)["running"][0]["sign_of_life"] == file.stat().st_mtime
        assert json.loads(found)["next"].startswith(step)
    assert "kill -KILL 77 restarts it" in json.loads(found)["next"]


def test_trials_without_a_process_are_interrupted(tuned: optuna.Study, storage_url: str, capsys: Captured) -> None:
    folder = Path(tuned.user_attrs["outdir"])
    for _ in range(2):  # one process exited before its trial knew its host
        trial = tuned.ask()
    trial.set_user_attr(TrialKey.WORKER, {"host": socket.gethostname(), "pid": 77, "since": time.time() - 120})
    assert _json("first", storage_url, capsys)["interrupted"] == []  # the folder is on another machine
    with lock_study(folder):
        code = "import sys; from lightning_hpo.cli import main; main(['status', '--json', *sys.argv[1:]])"
        command = [sys.executable, "-c", code, "--study", "first", "--storage", storage_url]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert [each["trial"] for each in found["running"]] == [2, 3, 4]
    found = _json("first", storage_url, capsys)
    assert ([each["trial"] for each in found["running"]], found["interrupted"]) == ([2], [3, 4])
    print_status("first", DatabaseUrl(storage_url, "--storage"))
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "outcomes 1 complete, 1 failed, 1 running, 2 interrupted" in shown
    assert "4 interrupted - 0 -" in shown


def test_status_does_not_just_repeat_a_command_that_has_failed(
    tuned: optuna.Study, storage_url: str, capsys: Captured
) -> None:
    folder = Path(tuned.user_attrs["outdir"])
    folder.mkdir(parents=True)
    tuned.tell(2, state=TrialState.FAIL)
    resume = f"resume the study: {tuned.user_attrs['command']}"
    assert _next(storage_url, capsys) == resume
    tuned.tell(tuned.ask(), state=TrialState.FAIL)
    assert _next(storage_url, capsys) == (
        f"find out why the last 3 trials have failed ({folder}/trial_3/log.txt), then {resume}"
    )
    tuned.tell(tuned.ask(), 0.5)
    assert _next(storage_url, capsys) == resume


def _next(url: str, capsys: Captured, name: str = "first") -> str:
    return str(_json(name, url, capsys)["next"])


def test_next_step_depends_on_the_state_of_the_study(
    tuned: optuna.Study, storage_url: str, tmp_path: Path, capsys: Captured
) -> None:
    assert _next(storage_url, capsys).startswith("see the machine with")
    with lock_study(tmp_path / "outputs/first"):
        code = "import sys; from lightning_hpo.cli import main; main(['status', '--json', *sys.argv[1:]])"
        command = [sys.executable, "-c", code, "--study", "first", "--storage", storage_url]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert (
            found["next"]
            == f"nothing: process {found['tuned_by']} runs the study; to pause it: kill -INT {found['tuned_by']}"
        )
    assert _next(storage_url, capsys) == f"resume the study: {tuned.user_attrs['command']}"
    tuned.tell(2, 0.6)
    tuned.set_user_attr("exhausted", True)
    assert _next(storage_url, capsys) == (
        "the study is complete: lightning-hpo report first, lightning-hpo refit first"
    )
    refit = optuna.create_study(study_name="first-refit", storage=storage_url)
    assert _next(storage_url, capsys).endswith("lightning-hpo report first, lightning-hpo register --study first")
    assert _next(storage_url, capsys, "first-refit") == "nothing: the study was not made by `tune`"
    for key, value in {"agent": "criteria", "refit_of": "first", "command": "lightning-hpo refit first"}.items():
        refit.set_user_attr(key, value)
    assert _next(storage_url, capsys, "first-refit") == "print the result: lightning-hpo refit first"


def test_imported_study_shows_what_is_recorded(study: optuna.Study, storage_url: str, capsys: Captured) -> None:
    study.tell(study.ask(), 0.5)
    found = _json("first", storage_url, capsys)
    assert (found["total"], found["seconds_left"], found["outdir"]) == (None, None, None)
    print_status("first", DatabaseUrl(storage_url, "--storage"))
    assert "1 of ?" in capsys.readouterr().out


def test_status_imports_no_slow_packages(study: optuna.Study, storage_url: str) -> None:
    code = f"""
import sys
from lightning_hpo.cli import main
main(["status", "--study", {study.study_name!r}, "--storage", {storage_url!r}])
print(sorted({{"torch", "lightning", "mlflow", "transformers", "alembic", "scipy", "jsonargparse"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
