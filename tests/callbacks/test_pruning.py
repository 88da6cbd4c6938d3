from pathlib import Path

import optuna
import pytest
from lightning.pytorch.loggers import MLFlowLogger
from optuna.trial import TrialState

from lightning_hpo.callbacks import MLflowMetrics, MLflowModelCheckpoint, PruningCallback
from lightning_hpo.exceptions import InputError
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker
from tests.callbacks.conftest import Fit


class _From(optuna.pruners.BasePruner):
    """Prunes every trial at a given epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        del study
        return trial.last_step is not None and trial.last_step >= self._epoch


def _trial(study: optuna.Study, pruner: optuna.pruners.BasePruner) -> optuna.Trial:
    study.pruner = pruner
    return study.ask()


def test_each_epoch_is_reported_once(fit: Fit, study: optuna.Study) -> None:
    trial = _trial(study, optuna.pruners.NopPruner())
    fit([0.25, 0.5, 0.375], [PruningCallback(trial, "val_metric")])
    assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.5, 2: 0.375}
    assert study.trials[0].state == TrialState.RUNNING


def test_trial_is_pruned_by_the_decision_of_the_pruner(fit: Fit, study: optuna.Study) -> None:
    trial = _trial(study, _From(1))
    with pytest.raises(optuna.TrialPruned):
        fit([0.25, 0.5, 0.375], [PruningCallback(trial, "val_metric")])
    study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].intermediate_values == {0: 0.25, 1: 0.5}
    assert study.trials[0].value == 0.5


def test_metrics_of_the_pruned_epoch_are_logged(
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


def test_missing_monitor_is_an_error(fit: Fit, study: optuna.Study) -> None:
    callback = PruningCallback(_trial(study, optuna.pruners.NopPruner()), "val_mettric")
    with pytest.raises(InputError, match=r"^--study.monitor: 'val_mettric' is never logged; metrics: .*val_metric"):
        fit([0.25, 0.5], [callback])


@pytest.mark.filterwarnings("ignore::FutureWarning:torch", "ignore::DeprecationWarning")  # torch.export
def test_objective_with_pruning_model_checkpoint_and_logger(
    fit: Fit, study: optuna.Study, mlflow_logger: MLFlowLogger, tracking_uri: str, tmp_path: Path
) -> None:
    """The docstring's objective: both callbacks and an MLFlowLogger in one Trainer, in a study of plain Optuna."""
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    runs: dict[int, str] = {}

    def objective(trial: optuna.Trial) -> float:
        values = [0.25, 0.5, 0.375] if trial.number == 0 else [0.125, 0.75, 0.75]
        logger = MLFlowLogger("plain", tracking_uri=tracking_uri, artifact_location=str(tmp_path / "artifacts"))
        runs[trial.number] = str(logger.run_id)
        best = MLflowModelCheckpoint(tmp_path / f"trial_{trial.number}")
        try:
            fit(values, [PruningCallback(trial, "val_metric"), best], logger=logger, log_every_n_steps=1)
        except optuna.TrialPruned:
            logger.experiment.set_terminated(runs[trial.number], "KILLED")
            raise
        assert best.best_value is not None
        return best.best_value

    study.optimize(objective, n_trials=2)
    assert [(trial.state, trial.value) for trial in study.trials] == [
        (TrialState.COMPLETE, 0.5),
        (TrialState.PRUNED, 0.125),
    ]
    assert [trial.intermediate_values for trial in study.trials] == [{0: 0.25, 1: 0.5, 2: 0.375}, {0: 0.125}]
    client = mlflow_logger.experiment
    assert [client.get_run(runs[number]).info.status for number in (0, 1)] == ["FINISHED", "KILLED"]
    assert len(client.get_metric_history(runs[1], "val_metric")) == 1
    models = client.search_logged_models([str(mlflow_logger.experiment_id)])
    assert [model.source_run_id for model in models] == [runs[0]]
