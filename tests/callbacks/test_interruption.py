"""Signals to `fit`, `validate`, `test` and `predict`, in one process."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_hpo.callbacks.interruption import Interruption
from lightning_hpo.cli import main
from lightning_hpo.exceptions import StoppedBySignalError

# The checkpoint is that of a `fit`, which has a callback more.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")

_MODULES = {"test": "TestedModule", "predict": "PredictingModule"}
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Handle SIGINT, which a shell lets its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command that sends signals to its own process, and writes `seen.txt`."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, stage: str, *numbers: int, **trainer: Any) -> int:
        init = {"stage": stage, "seen": "seen.txt", "numbers": [int(number) for number in numbers]}
        callback = {"class_path": "tests.fault_callbacks.SignalAtBatch", "init_args": init}
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        config = {
            "model": {"class_path": f"tests.foreign.{_MODULES.get(command, 'ForeignModule')}"},
            "data": {"class_path": "tests.foreign.ForeignData"},
            "trainer": {"max_epochs": 1, "num_sanity_val_steps": 0, "callbacks": [callback], **quiet, **trainer},
        }
        Path("config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        weights = [] if command == "fit" else ["--ckpt_path", "checkpoints/best.ckpt"]
        return main([command, "--config", "config.yaml", *weights])

    assert run("fit", "nowhere") == 0
    Path("seen.txt").unlink()
    return run


def _seen() -> list[str]:
    return Path("seen.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("command", "stage", "numbers", "code"),
    [
        ("fit", "train", [signal.SIGTERM], 143),
        ("fit", "validation", [signal.SIGHUP], 129),
        ("validate", "validation", [signal.SIGTERM, signal.SIGTERM], 143),  # as `timeout` sends it
        ("test", "test", [signal.SIGINT], 130),
        ("test", "test", [signal.SIGHUP, signal.SIGTERM], 129),
        ("predict", "predict", [signal.SIGTERM], 143),
    ],
)
def test_command_stops_after_the_batch_of_the_signal(
    run: Run,
    command: str,
    stage: str,
    numbers: list[signal.Signals],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert run(command, stage, *numbers) == code
    assert _seen()[-2:] == [f"{stage} 1", "sent"]
    printed = capsys.readouterr().err
    assert printed.splitlines()[-1] == f"stopped by {numbers[0].name}"
    assert "Traceback" not in printed
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(
    ("stage", "numbers", "code"),
    [("setup", [signal.SIGTERM], 143), ("predict", [signal.SIGTERM, signal.SIGINT], 143)],
    ids=["before the first batch", "Ctrl-C after it"],
)
def test_command_stops_at_once(run: Run, stage: str, numbers: list[int], code: int) -> None:
    assert run("predict", stage, *numbers) == code
    assert _seen()[-1] == f"{stage} 1"


@pytest.mark.parametrize(("numbers", "lines"), [([], 4), ([signal.SIGTERM], 0), ([signal.SIGTERM, signal.SIGINT], 0)])
def test_file_of_predictions_is_whole_or_unchanged(
    run: Run, numbers: list[int], lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path("predictions.jsonl")
    output.write_text("of an earlier command\n", encoding="utf-8")
    with output.open("a", encoding="utf-8") as file, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", file)
        assert run("predict", "predict", *numbers) == (143 if numbers else 0)
    written = output.read_text(encoding="utf-8").splitlines()
    assert written == ["of an earlier command", *[f'{{"batch": {number}}}' for number in range(lines)]]


def test_pipe_gets_each_prediction_at_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "predict", signal.SIGTERM) == 143
    assert capsys.readouterr().out.splitlines() == ['{"batch": 0}', '{"batch": 1}']


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_error_that_follows_a_signal_counts_as_its_stop() -> None:
    def lose_a_worker() -> None:
        with Interruption() as interruption:
            interruption.on_predict_start(None, None)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated")

    with pytest.raises(StoppedBySignalError, match="stopped by SIGTERM") as raised:
        lose_a_worker()
    assert raised.value.number == signal.SIGTERM
