"""Optuna pruners by class path, and a check that a pruner can prune within a trial's epochs."""

import optuna
from jsonargparse import Namespace
from optuna.pruners import BasePruner, MedianPruner, NopPruner

from lightning_hpo.config.class_paths import instantiate
from lightning_hpo.exceptions import InputError

__all__ = ["build_pruner", "check_pruner"]

_TRIALS = 100
_MAX_REPORTS = 100
_FAR = 1e12


def build_pruner(config: Namespace | None, max_epochs: int) -> BasePruner:
    """Create the configured pruner. Default: MedianPruner, from the second epoch on if there are several."""
    if config is None:
        return MedianPruner(n_startup_trials=4, n_warmup_steps=1 if max_epochs > 1 else 0)
    pruner: BasePruner = instantiate(BasePruner, config, "--study.pruner")
    return pruner


def check_pruner(pruner: BasePruner, *, reports: int) -> None:
    """Reject a pruner that can never prune a trial with so few epochs.

    The check runs an in-memory study in which every second trial diverges and the others improve steadily.

    Args:
        pruner: The pruner.
        reports: Maximum number of values that a trial reports: its validated epochs.

    Raises:
        InputError: If none of the diverging trials is pruned.
    """
    if isinstance(pruner, NopPruner) or reports < 1 or _prunes_a_diverging_trial(pruner, min(reports, _MAX_REPORTS)):
        return
    raise InputError(
        f"--study.pruner: {type(pruner).__name__} can never prune a trial of {reports} epochs; "
        "lower its warm-up or resource, raise --trainer.max_epochs, "
        "or turn pruning off: --study.pruner optuna.pruners.NopPruner"
    )


def _prunes_a_diverging_trial(pruner: BasePruner, reports: int) -> bool:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        # Very low and very high values, so that a ThresholdPruner also has something to prune.
        return any(_prunes(pruner, reports, far) for far in (-_FAR, _FAR))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _prunes(pruner: BasePruner, reports: int, far: float) -> bool:
    study = optuna.create_study(direction="maximize", pruner=pruner, study_name="pruner-check")
    for number in range(_TRIALS):
        diverging = number % 2 == 1
        trial = study.ask()
        for step in range(reports):
            trial.report(far * (step + 1) if diverging else step + 1.0, step)
            if trial.should_prune() and diverging:  # called for all trials: some pruners store state in the call
                return True
        study.tell(trial, far if diverging else float(reports))
    return False
