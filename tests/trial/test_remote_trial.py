import warnings
from collections.abc import Iterator
from multiprocessing import Pipe
from threading import Thread
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.trial.remote_trial import Question, RemoteTrial, Written


class CountingPruner(BasePruner):
    """Says stop when it has been asked twice."""

    asked = 0

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        del study, trial
        self.asked += 1
        return self.asked == 2


def _trial_server(study: optuna.Study) -> TrialServer:
    return TrialServer(study, study.ask()._trial_id, lambda value: value > 0.5)


@pytest.fixture
def line(study: optuna.Study) -> Iterator[RemoteTrial]:
    """A line at whose other end the study's first trial is advised; it ends at a notice."""
    study.pruner = MedianPruner(n_startup_trials=0)
    study.add_trial(optuna.create_trial(state=TrialState.COMPLETE, value=0.7, intermediate_values={0: 0.4, 1: 0.7}))
    ours, theirs = Pipe()
    trial_server = _trial_server(study)

    def listen() -> None:
        while isinstance(message := ours.recv(), Question):
            ours.send(trial_server.answer(message))
        assert message == Written()

    listener = Thread(target=listen)
    listener.start()
    line = RemoteTrial(theirs)
    yield line
    line.written()
    listener.join()


def test_what_is_reported_and_asked_over_the_line_is_optunas(line: RemoteTrial, study: optuna.Study) -> None:
    line.report(0.5, 0)
    assert study.trials[1].intermediate_values == {0: 0.5}
    assert not line.should_prune()
    line.report(0.6, 1)
    assert line.should_prune()
    assert [line.leads(value) for value in (0.4, 0.6)] == [False, True]


def test_a_step_that_is_reported_again_keeps_its_first_value(study: optuna.Study) -> None:
    trial = study.ask()
    trial.report(0.5, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrialServer(study, trial._trial_id, bool).report(0.9, 0)
    assert study.trials[0].intermediate_values == {0: 0.5}


def test_a_pruner_remembers_nothing_of_other_trials(study: optuna.Study) -> None:
    study.pruner = CountingPruner()
    first, second = _trial_server(study), _trial_server(study)
    assert [first.should_prune(), second.should_prune(), first.should_prune()] == [False, False, True]
    assert study.pruner.asked == 0


def test_a_question_that_nobody_answers_is_a_broken_line() -> None:
    ours, theirs = Pipe()
    line: Any = RemoteTrial(theirs)
    ours.close()
    with pytest.raises(BrokenPipeError):
        line.should_prune()
