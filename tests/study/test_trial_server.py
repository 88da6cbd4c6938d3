import warnings

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from lightning_hpo.study.trial_server import TrialServer
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.trial.messages import Report, ShouldPrune


class CountingPruner(BasePruner):
    """Prunes at its second decision."""

    decisions = 0

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        del study, trial
        self.decisions += 1
        return self.decisions == 2


def test_repeated_report_keeps_the_first_value(study: optuna.Study, outbox: Outbox) -> None:
    trial = study.ask()
    trial.report(0.5, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrialServer(study, trial, bool, outbox).answer(Report(0.9, 0))
    assert study.trials[0].intermediate_values == {0: 0.5}


def test_pruner_keeps_no_state_between_trials(study: optuna.Study, outbox: Outbox) -> None:
    study.pruner = CountingPruner()
    first, second = (TrialServer(study, study.ask(), bool, outbox) for _ in range(2))
    assert [server.answer(ShouldPrune()) for server in (first, second, first)] == [False, False, True]
    assert study.pruner.decisions == 0
