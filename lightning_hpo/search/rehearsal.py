"""Rehearsal of a sampler before a study: a few trials in memory, so that a library's exception becomes one line."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from jsonargparse import Namespace
from optuna.trial import TrialState

from lightning_hpo.exceptions import InputError
from lightning_hpo.search.library_errors import library_problem
from lightning_hpo.search.samplers import Space, build_sampler

__all__ = ["rehearse_sampler"]

_TRIALS = 12  # GPSampler and TPESampler draw their first ten points at random
_MOST_TRIALS = 100
_COPIED = 50


def rehearse_sampler(
    config: Namespace | None,
    seed: int,
    space: Space,
    direction: Literal["maximize", "minimize"],
    stored: optuna.Study | None = None,
) -> None:
    """Ask for trials of an in-memory study, and tell simulated values, until the sampler has left its random start.

    Args:
        config: Class path and arguments of the sampler. The default sampler, None, is not rehearsed.
        seed: Seed of the study.
        space: The search space.
        direction: Direction of the study.
        stored: The study, if it exists. Its last trials are copied.

    Raises:
        InputError: If the sampler raises an exception, such as for a missing package.
    """
    if config is None:
        return
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _rehearse(config, seed, space, direction, stored)
    except InputError:
        raise
    except Exception as error:
        raise InputError(library_problem("--study.sampler", config.class_path, error)) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _rehearse(
    config: Namespace,
    seed: int,
    space: Space,
    direction: Literal["maximize", "minimize"],
    stored: optuna.Study | None,
) -> None:
    sampler = build_sampler(config, seed, space)
    study = optuna.create_study(direction=direction, sampler=sampler, study_name="sampler-check")
    if stored is not None:
        ended = stored.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        study.add_trials(ended[-_COPIED:])
    for number in range(_number_of_trials(config.init_args.as_dict())):
        if sampler.exhausted or not sampler.has_new_point(study):
            return
        trial = study.ask()
        space.suggest(trial)
        sampler.remember(trial.number, trial.params)
        study.tell(trial, (number % 5) / 5)


def _number_of_trials(arguments: Mapping[str, Any]) -> int:
    """Return the number of trials until the sampler uses their values."""
    starts = [arguments.get(name) for name in ("n_startup_trials", "population_size")]
    wanted = max([_TRIALS, *(start + 2 for start in starts if isinstance(start, int))])
    return min(wanted, _MOST_TRIALS)
