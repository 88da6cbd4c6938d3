import re
import time
from collections.abc import Callable
from multiprocessing import forkserver

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.search.samplers import build_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.lease import Lease
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.progress import ProgressDisplay
from lightning_hpo.study.session import Session
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.messages import Alive, Notice, Progress
from lightning_hpo.trial.outcome import Outcome, OutcomeKind

Captured = pytest.CaptureFixture[str]
Open = Callable[..., Session]


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    return bool(request.param)


@pytest.fixture
def open_study(study: optuna.Study, tracker: Tracker) -> Open:
    forkserver.ensure_running()  # without imports, which no test here needs
    for key, value in {
        "outdir": "/nowhere",
        "monitor": "val_metric",
        "data_counts": {"posts": 3},
        "split_rule": "stratified",
        "split_sizes": {"train": {"posts": 2, "positives": {"SAD": 1}}, "val": {"posts": 1, "positives": {"SAD": 0}}},
        "constant_answers": {"never met": 0.4},
    }.items():
        study.set_user_attr(key, value)

    def open_study(total: int, done: int = 0) -> Session:
        spec = StudySpec(
            {"trainer": {"max_epochs": 2, "check_val_every_n_epoch": 1}}, {}, StudySettings(n_trials=total)
        )
        space = SearchSpace({}, {"aug": {}}, [])
        session = Session(spec, space, study, build_sampler(None, 17, space), tracker, "0", LocalWorkers(1), Lease())
        session.done = done
        for _ in range(done):
            session.eta.add(30.0, 2)
        return session

    return open_study


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def _search(session: Session) -> None:
    display = ProgressDisplay(session)
    first, second = session.study.ask(), session.study.ask()
    session.best = 0.25
    display.on_study_start()
    display.on_trial_start(first, resumed=False)
    display.on_trial_start(second, resumed=True)
    display.on_message(second, Notice("resumes from the end of an epoch"))
    for epoch in range(2):
        for share in (0.0, 0.5, 1.0, 1.0):
            display.on_message(first, Progress(epoch, 2, share, None if epoch + share < 1 else 0.5))
    session.best = 0.5
    session.done += 1
    display.on_trial_end(first, TrialState.COMPLETE, Outcome(OutcomeKind.COMPLETE, value=0.5, epoch=0))
    display.on_trial_end(second, TrialState.FAIL, Outcome(OutcomeKind.FAILED, reason="RuntimeError [x]"))
    display.on_study_end()


@pytest.mark.parametrize("epochs", [None, -1])
@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_unlimited_number_of_epochs_is_unknown(
    terminal: bool, epochs: int | None, open_study: Open, capfd: Captured
) -> None:
    del terminal
    session = open_study(total=1)
    display, trial = ProgressDisplay(session), session.study.ask()
    display.on_trial_start(trial, resumed=False)
    display.on_message(trial, Progress(2, epochs, 1.0, 0.5))
    assert capfd.readouterr().err.splitlines()[-1] == "trial 0 epoch 3/? val_metric 0.5000"


@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_log_file_gets_one_line_for_each_event(terminal: bool, open_study: Open, capfd: Captured) -> None:
    del terminal
    _search(open_study(total=4, done=3))
    assert capfd.readouterr().err.splitlines() == [
        "data: posts 3",
        "split (stratified): train 2 posts with 1 positives, val 1 posts with 0 positives",
        "criteria without positives, whose scores mean nothing there: val: SAD",
        "baselines: never met 0.4000",
        "trial 0 starts",
        "trial 1 resumes",
        "trial 1 resumes from the end of an epoch",
        "trial 0 epoch 1/2 val_metric 0.5000",
        "trial 0 epoch 2/2 val_metric 0.5000",
        "trial 0 complete: val_metric 0.5000 in epoch 1  [4/4  best val_metric 0.5000]",
        "trial 1 failed: RuntimeError [x]  [4/4  best val_metric 0.5000]",
    ]


@pytest.mark.parametrize("terminal", [True], indirect=True)
def test_terminal_gets_bars_and_outcomes(terminal: bool, open_study: Open, capfd: Captured) -> None:
    del terminal
    _search(open_study(total=5, done=3))
    shown = _plain(capfd.readouterr().err)
    assert "trial 0 complete: val_metric 0.5000 in epoch 1\n" in shown
    assert "trial 0 starts" not in shown
    last_bar = [line for line in re.split(r"[\r\n]", shown) if line.startswith("study")][-1]
    assert "4/5" in last_bar
    assert "best val_metric 0.5000" in last_bar
    assert last_bar.rstrip().endswith("left")


@pytest.mark.parametrize("terminal", [True], indirect=True)
def test_bar_shows_for_how_long_a_trial_has_given_no_sign_of_life(
    terminal: bool, open_study: Open, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    del terminal
    display, now = ProgressDisplay(session := open_study(total=2)), time.monotonic()
    trial = session.study.ask()
    display.on_study_start()
    display.on_trial_start(trial, resumed=False)
    for seconds, message, shown in ((59, None, ""), (840, None, "no sign of life for 14 min"), (841, Alive(), "")):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        if message is not None:
            display.on_message(trial, message)
        display.on_wait()
        capfd.readouterr()
        display._progress.refresh()
        bars = re.findall("trial 0.*", _plain(capfd.readouterr().err))
        assert bars[-1].rstrip().endswith(f"starting {shown}".rstrip())
    display.on_study_end()


def test_nothing_is_written_to_stdout(terminal: bool, open_study: Open, capfd: Captured) -> None:
    del terminal
    _search(open_study(total=4))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_line_is_neither_wrapped_nor_read_as_markup(
    terminal: bool, open_study: Open, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    del terminal
    monkeypatch.setenv("COLUMNS", "20")
    line = "[bold]" + "a long line " * 20
    open_study(total=1).say(line)
    assert capfd.readouterr().err == line + "\n"


@pytest.mark.parametrize("terminal", [False], indirect=True)
def test_trial_without_a_known_length(terminal: bool, open_study: Open, capfd: Captured) -> None:
    del terminal
    session = open_study(total=1)
    display, trial = ProgressDisplay(session), session.study.ask()
    display.on_trial_start(trial, resumed=False)
    display.on_message(trial, Progress(0, None, 1.0, None))
    assert capfd.readouterr().err.splitlines()[-1] == "trial 0 epoch 1/?"
