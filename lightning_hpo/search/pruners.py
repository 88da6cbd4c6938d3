"""Optuna's pruners, by class path, and whether they can prune at all."""

import optuna
from jsonargparse import Namespace
from optuna.pruners import BasePruner, MedianPruner, NopPruner

from lightning_hpo.config.class_paths import instantiate
from lightning_hpo.exceptions import InputError

__all__ = ["build_pruner", "check_pruner"]

_ENOUGH = 100
_FAR = 1e12


def build_pruner(config: Namespace | None, max_epochs: int) -> BasePruner:
    """The configured pruner; by default one that compares with the median, from an early epoch on."""
    if config is None:
        return MedianPruner(n_startup_trials=4, n_warmup_steps=1 if max_epochs > 1 else 0)
    pruner: BasePruner = instantiate(BasePruner, config, "--study.pruner")
    return pruner


def check_pruner(pruner: BasePruner, *, reports: int) -> None:
    """Refuse a pruner that could never prune a trial of so few epochs.

    The pruner is asked: in a study in memory, every second trial gets worse with every epoch and the others get better.

    Args:
        pruner: The pruner.
        reports: Values that a trial reports at most: its validated epochs.

    Raises:
        InputError: If none of the failing trials would have been pruned.
    """
    if isinstance(pruner, NopPruner) or reports < 1 or _prunes_a_failing_trial(pruner, min(reports, _ENOUGH)):
        return
    raise InputError(
        f"--study.pruner: {type(pruner).__name__} can never prune a trial of {reports} epochs; "
        "lower its warm-up or resource, raise --trainer.max_epochs, "
        "or say that none shall be pruned: --study.pruner optuna.pruners.NopPruner"
    )


def _prunes_a_failing_trial(pruner: BasePruner, reports: int) -> bool:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        # Far below and far above, so that a pruner with a bound of its own has something to prune, too.
        return any(_prunes(pruner, reports, far) for far in (-_FAR, _FAR))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _prunes(pruner: BasePruner, reports: int, far: float) -> bool:
    study = optuna.create_study(direction="maximize", pruner=pruner, study_name="rehearsal")
    for number in range(_ENOUGH):
        failing = number % 2 == 1
        trial = study.ask()
        for step in range(reports):
            trial.report(far * (step + 1) if failing else step + 1.0, step)
            if trial.should_prune() and failing:  # asked of both: some pruners compare with what they were asked
                return True
        study.tell(trial, far if failing else float(reports))
    return False
