import re

import pytest

from lightning_hpo.study.eta import TimeEstimator
from lightning_hpo.study.progress import ProgressDisplay

Captured = pytest.CaptureFixture[str]


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    return bool(request.param)


def _display(total: int, done: int = 0) -> ProgressDisplay:
    eta = TimeEstimator(total, workers=1, epochs=2)
    for _ in range(done):
        eta.add(30.0, 2)
    return ProgressDisplay(total, done, "val_metric", eta)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def _search(display: ProgressDisplay) -> None:
    with display:
        display.best_is(0.25)
        display.started(3, resumed=False)
        display.started(4, resumed=True)
        for epoch in range(2):
            for share in (0.0, 0.5, 1.0, 1.0):
                display.trains(3, epoch, 2, share, None if epoch + share < 1 else 0.5)
        display.best_is(0.5)
        display.ended(3, "complete: val_metric 0.5000 at epoch 1", counts=True)
        display.ended(4, "failed: RuntimeError [x]", counts=False)


@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_a_log_file_gets_a_line_an_event(terminal: bool, capfd: Captured) -> None:
    del terminal
    _search(_display(total=4, done=3))
    assert capfd.readouterr().err.splitlines() == [
        "trial 3 starts",
        "trial 4 goes on",
        "trial 3 epoch 1/2 val_metric 0.5000",
        "trial 3 epoch 2/2 val_metric 0.5000",
        "trial 3 complete: val_metric 0.5000 at epoch 1  [4/4  best val_metric 0.5000]",
        "trial 4 failed: RuntimeError [x]  [4/4  best val_metric 0.5000]",
    ]


@pytest.mark.parametrize("terminal", [True], indirect=True)
def test_a_terminal_gets_bars_and_what_has_ended(terminal: bool, capfd: Captured) -> None:
    del terminal
    display = _display(total=5, done=3)
    _search(display)
    shown = _plain(capfd.readouterr().err)
    assert "trial 3 complete: val_metric 0.5000 at epoch 1\n" in shown
    assert "trial 3 starts" not in shown
    last_bar = [line for line in re.split(r"[\r\n]", shown) if line.startswith("study")][-1]
    assert "4/5" in last_bar
    assert "best val_metric 0.5000" in last_bar
    assert last_bar.rstrip().endswith("left")


def test_nothing_is_written_to_stdout(terminal: bool, capfd: Captured) -> None:
    del terminal
    _search(_display(total=4, done=0))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_a_line_is_never_wrapped_or_read_as_markup(
    terminal: bool, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    del terminal
    monkeypatch.setenv("COLUMNS", "20")
    line = "[bold]" + "a long line " * 20
    _display(total=1, done=0).say(line)
    assert capfd.readouterr().err == line + "\n"


@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_a_trial_without_a_known_length(terminal: bool, capfd: Captured) -> None:
    del terminal
    display = _display(total=1, done=0)
    display.started(0, resumed=False)
    display.trains(0, 0, None, 1.0, None)
    assert capfd.readouterr().err.splitlines()[-1] == "trial 0 epoch 1/?"
