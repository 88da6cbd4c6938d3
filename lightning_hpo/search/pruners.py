"""Optuna pruners by class path, and a check that a pruner can prune within a trial's epochs."""

import math

import optuna
from jsonargparse import Namespace
from optuna.pruners import BasePruner, MedianPruner, NopPruner

from lightning_hpo.config.flags import instantiate
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.library_errors import library_problem

__all__ = ["build_pruner", "check_pruner"]

_TRIALS = 100
_MAX_REPORTS = 100
_FAR = 1e12


def build_pruner(config: Namespace | None, reports: int, warmup: float = 0.0) -> BasePruner:
    """Create the configured pruner. Default: MedianPruner, after the warm-up and the first third of the validations.

    Before, a trial with a long warm-up is behind one without, however good it will be.

    Args:
        config: Class and arguments of the pruner.
        reports: Number of validations of a trial.
        warmup: Largest share of a training in which the learning rate rises.
    """
    if config is None:
        spared = math.ceil(max(1 / 3, warmup) * reports)
        return MedianPruner(n_startup_trials=4, n_warmup_steps=max(0, min(spared, reports - 1)))
    pruner: BasePruner = instantiate(BasePruner, config, "--study.pruner")
    return pruner


def check_pruner(pruner: BasePruner, *, reports: int) -> None:
    """Reject a pruner that can never prune a trial with so few reports (validated epochs).

    The check runs an in-memory study in which every second trial diverges and the others improve steadily.

    Raises:
        InputError: If none of the diverging trials is pruned.
    """
    if isinstance(pruner, NopPruner) or reports < 1:
        return
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = type(pruner).__name__
    try:
        # Very low and very high values, so that a ThresholdPruner also has something to prune.
        prunes = any(_prunes(pruner, min(reports, _MAX_REPORTS), far) for far in (-_FAR, _FAR))
    except Exception as error:
        raise InputError(library_problem("--study.pruner", name, error)) from error
    finally:
        optuna.logging.set_verbosity(verbosity)
    if not prunes:
        raise InputError(
            f"--study.pruner: {name} can never prune a trial of {reports} epochs; "
            "lower its warm-up or resource, raise --trainer.max_epochs, "
            "or turn pruning off: --study.pruner optuna.pruners.NopPruner"
        )


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
