import multiprocessing
import os
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.storage import lease as lease_module
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.lease import Lease, Machine
from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.trial.messages import Report, Request
from tests.study_sandbox import StudySandbox
from tests.unchanged import unchanged

OTHER = Machine("other", "a start", 7, "1")


def _study(sandbox: StudySandbox) -> optuna.Study:
    return optuna.load_study(study_name="first", storage=sandbox.storage)


def test_study_that_another_machine_tunes_is_refused(sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--study.n_trials", "1", "--study.register", "false")
    assert sandbox.tune("first", *flags) == 0
    assert StudyKey.LEASE not in _study(sandbox).user_attrs
    lease = Lease(OTHER)
    lease.take(_study(sandbox))
    capsys.readouterr()
    with unchanged(sandbox.folder):
        assert sandbox.tune("first", "--study.n_trials", "2") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --study.name: process 7 on other is tuning first, as of ")
    lease.release()
    assert sandbox.tune("first", *flags) == 0


def test_study_that_another_machine_has_taken_over_is_left_as_it_is(
    sandbox: StudySandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = TrialServer.answer
    processes: list[int] = []

    def taken_over(server: TrialServer, request: Request) -> Any:
        answered = answer(server, request)
        if isinstance(request, Report) and request.step == 1:
            processes.append(_study(sandbox).trials[0].user_attrs["worker"]["pid"])
            with monkeypatch.context() as patch:
                patch.setattr(lease_module, "EXPIRES_S", 0.0)  # this process was suspended for longer
                Lease(OTHER).take(_study(sandbox))
            monkeypatch.setattr(lease_module, "_RENEWED_EVERY_S", 0.0)
        return answered

    monkeypatch.setattr(TrialServer, "answer", taken_over)
    assert sandbox.tune("first", "--study.n_trials", "2") == 1
    shown: list[Any] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(shown) == 1
    assert shown[0].startswith("error: first is tuned by process 7 on other now, since this process was suspended or")
    assert multiprocessing.active_children() == []
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)
    [trial] = sandbox.trials("first")
    assert (trial.state, set(trial.intermediate_values)) == (TrialState.RUNNING, {0, 1})
    assert sandbox.runs("first")[0].info.status == "RUNNING"
    assert _study(sandbox).user_attrs[StudyKey.LEASE]["host"] == "other"
