from collections.abc import Iterator
from multiprocessing import Pipe
from threading import Thread

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.trial import TrialState

from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.tracking.entries import LogMetrics, SetStatus
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.messages import Alive, Request
from lightning_hpo.trial.remote_trial import RemoteTrial


@pytest.fixture
def remote(study: optuna.Study, outbox: Outbox) -> Iterator[RemoteTrial]:
    """The study's second trial, whose requests a thread answers until it has no further ones."""
    study.pruner = MedianPruner(n_startup_trials=0)
    study.add_trial(optuna.create_trial(state=TrialState.COMPLETE, value=0.7, intermediate_values={0: 0.4, 1: 0.7}))
    ours, theirs = Pipe()
    server = TrialServer(study, study.ask(), lambda value: value > 0.5, outbox)

    def serve() -> None:
        while isinstance(message := ours.recv(), Request):
            ours.send(server.answer(message))
        assert message == Alive()

    thread = Thread(target=serve)
    thread.start()
    remote = RemoteTrial(theirs)
    yield remote
    remote.send(Alive())
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


def test_entries_are_written_by_the_study_process(
    remote: RemoteTrial, outbox: Outbox, tracker: Tracker, run_id: str
) -> None:
    remote.write(SetStatus("RUNNING", {"device": "cpu"}))
    remote.write(LogMetrics({"epoch": 0.0, "val_metric": 0.5}, step=0))
    assert remote.steps("val_metric") == outbox.steps("val_metric") == {0}
    assert remote.steps("samples_per_s") == set()
    assert remote.run_id == run_id
    assert tracker.logged_steps(run_id, "val_metric") == {0}
    assert tracker.client.get_run(run_id).data.tags["device"] == "cpu"


def test_request_without_a_study_process_raises_broken_pipe() -> None:
    ours, theirs = Pipe()
    remote = RemoteTrial(theirs)
    ours.close()
    with pytest.raises(BrokenPipeError):
        remote.should_prune()
