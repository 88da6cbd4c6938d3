from collections.abc import Iterator
from multiprocessing import Pipe
from threading import Thread

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.trial import TrialState

from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.trial.messages import OutboxWritten, Request
from lightning_hpo.trial.remote_trial import RemoteTrial


@pytest.fixture
def remote(study: optuna.Study) -> Iterator[RemoteTrial]:
    """The study's second trial, whose requests a thread answers until the outbox is written."""
    study.pruner = MedianPruner(n_startup_trials=0)
    study.add_trial(optuna.create_trial(state=TrialState.COMPLETE, value=0.7, intermediate_values={0: 0.4, 1: 0.7}))
    ours, theirs = Pipe()
    server = TrialServer(study, study.ask(), lambda value: value > 0.5)

    def serve() -> None:
        while isinstance(message := ours.recv(), Request):
            ours.send(server.answer(message))
        assert message == OutboxWritten()

    thread = Thread(target=serve)
    thread.start()
    remote = RemoteTrial(theirs)
    yield remote
    remote.outbox_written()
    thread.join()


def test_remote_trial_behaves_like_an_optuna_trial(remote: RemoteTrial, study: optuna.Study) -> None:
    remote.report(0.5, 0)
    assert study.trials[1].intermediate_values == {0: 0.5}
    assert not remote.should_prune()
    remote.report(0.6, 1)
    assert remote.should_prune()
    remote.set_user_attr("worker", {"pid": 1})
    assert study.trials[1].user_attrs == {"worker": {"pid": 1}}
    assert [remote.is_best(value) for value in (0.4, 0.6)] == [False, True]


def test_request_without_a_study_process_raises_broken_pipe() -> None:
    ours, theirs = Pipe()
    remote = RemoteTrial(theirs)
    ours.close()
    with pytest.raises(BrokenPipeError):
        remote.should_prune()
