import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics
from lightning_hpo.callbacks.pruning import PruningCallback
from lightning_hpo.exceptions import InputError
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from tests.callbacks.conftest import Fit


class _From(optuna.pruners.BasePruner):
    """Prunes every trial from an epoch on."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        del study
        return trial.last_step is not None and trial.last_step >= self._epoch


def _trial(study: optuna.Study, pruner: optuna.pruners.BasePruner) -> optuna.Trial:
    study.pruner = pruner
    return study.ask()


def test_every_epoch_is_reported_once(fit: Fit, study: optuna.Study) -> None:
    trial = _trial(study, optuna.pruners.NopPruner())
    fit([0.25, 0.5, 0.375], [PruningCallback(trial, "val_metric")])
    assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.5, 2: 0.375}
    assert study.trials[0].state == TrialState.RUNNING


def test_a_trial_is_pruned_when_the_pruner_says_so(fit: Fit, study: optuna.Study) -> None:
    trial = _trial(study, _From(1))
    with pytest.raises(optuna.TrialPruned):
        fit([0.25, 0.5, 0.375], [PruningCallback(trial, "val_metric")])
    study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.5}
    assert study.trials[0].value == 0.5


def test_the_pruned_epoch_is_recorded_before(
    fit: Fit, study: optuna.Study, tracker: Tracker, run_id: str, outbox: Outbox
) -> None:
    trial = _trial(study, _From(1))
    callbacks = [MLflowMetrics(outbox, "val_metric"), PruningCallback(trial, "val_metric")]
    with pytest.raises(optuna.TrialPruned):
        fit([0.25, 0.5, 0.375], callbacks)
    assert tracker.logged_steps(run_id, "val_metric") == {0, 1}


def test_only_validated_epochs_are_reported(fit: Fit, study: optuna.Study) -> None:
    trial = _trial(study, optuna.pruners.NopPruner())
    fit([0.1, 0.25, 0.1, 0.5], [PruningCallback(trial, "val_metric")], check_val_every_n_epoch=2)
    assert study.trials[0].intermediate_values == {1: 0.25, 3: 0.5}


def test_a_monitor_that_is_never_logged_is_an_error(fit: Fit, study: optuna.Study) -> None:
    callback = PruningCallback(_trial(study, optuna.pruners.NopPruner()), "val_mettric")
    with pytest.raises(InputError, match=r"^--study.monitor: 'val_mettric' is never logged; logged are: .*val_metric"):
        fit([0.25, 0.5], [callback])
