import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest

from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.study.hangs import HangDetector
from lightning_hpo.study.session import Session
from lightning_hpo.study_folder import StudyFolder
from lightning_hpo.trial.messages import Alive, Progress


class _Study:
    """A study of one running trial, its detector, a clock, and what the detector has done."""

    def __init__(self, trial: optuna.Trial, timeout: float | None) -> None:
        self.trial, self.now = trial, 1000.0
        self.done: list[str] = []
        self.stopping = SimpleNamespace(requested=False)
        workers = SimpleNamespace(
            print_frames=lambda key: self.done.append(f"frames of {key.number}"),
            end=lambda key, reason: self.done.append(f"end of {key.number}: {reason}"),
        )
        self.lines: list[str] = []
        session = SimpleNamespace(
            spec=SimpleNamespace(settings=StudySettings(trial_timeout=timeout), sample=None),
            folder=StudyFolder(Path("outputs/first")),
            say=self.lines.append,
            stopping=self.stopping,
            workers=workers,
        )
        self.detector = HangDetector(cast(Session, session))

    def wait(self, seconds: float, step: float = 5.0) -> None:
        """Wait for messages, of which there are none."""
        for _ in range(round(seconds / step)):
            self.now += step
            self.detector.on_wait()


@pytest.fixture
def made(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(timeout: float | None) -> _Study:
        made = _Study(study.ask(), timeout)
        monkeypatch.setattr(time, "monotonic", lambda: made.now)
        made.detector.on_wait()
        made.detector.on_trial_start(made.trial, resumed=False)
        made.wait(0)
        return made

    return make


def test_silent_trial_prints_its_frames_and_is_killed_ten_seconds_later(made: Any) -> None:
    study = made(1800.0)
    study.wait(1795)
    assert study.done == []
    study.wait(5)
    assert study.done == ["frames of 0"]
    study.wait(10)
    assert study.done[1:] == ["end of 0: no sign of life for 30 min"]
    study.wait(100)
    assert len(study.done) == 2
    assert study.lines == [
        "trial 0: no sign of life for 10 min",
        "trial 0 is killed: no sign of life for 30 min; outputs/first/trial_0/log.txt shows what it executed",
    ]


def test_any_message_ends_the_silence(made: Any) -> None:
    study = made(1800.0)
    for message in (Alive(), Progress(0, 2, 0.5, None)):
        study.wait(1805)  # its frames are printed
        study.detector.on_message(study.trial, message)
    study.wait(1795)
    assert study.done == ["frames of 0"] * 2
    assert study.lines.count("trial 0 gives signs of life again") == 2


def test_trial_is_only_reported_without_a_timeout(made: Any) -> None:
    study = made(None)
    study.wait(36000)
    assert study.done == []
    assert study.lines == [
        "trial 0: no sign of life for 10 min; with --study.trial_timeout, such a trial is killed and resumed"
    ]


def test_time_in_which_the_study_was_suspended_is_no_silence(made: Any) -> None:
    study = made(1800.0)
    study.wait(36000, step=3600.0)
    assert (study.done, study.lines) == ([], [])


def test_trial_that_hangs_does_not_delay_the_end_of_a_study(made: Any) -> None:
    study = made(None)
    study.wait(500)
    study.stopping.requested = True
    study.wait(295)
    assert study.done == []
    study.wait(15)
    assert study.done == ["frames of 0", "end of 0: no sign of life for 14 min"]


def test_trial_that_has_ended_is_forgotten(made: Any) -> None:
    study = made(60.0)
    study.detector.on_trial_end(study.trial, cast(Any, None), cast(Any, None))
    study.detector.on_message(study.trial, Alive())
    study.wait(600)
    assert (study.done, study.lines) == ([], [])
