"""Benchmark of the report of a large study: the time from both databases to the files, and the size of the page."""

import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.report.write import PAGE, write_report
from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.storage.connection import open_storage
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["measure"]

_TRIALS = 1000
_EPOCHS = 8
_NAME = "large"
_CHOICES = [f"some/encoder-{each}" for each in "abcdefghi"]
_KINDS: Mapping[str, BaseDistribution] = {
    **{f"model.choice_{n}": CategoricalDistribution(_CHOICES) for n in range(5)},
    **{f"model.rate_{n}": FloatDistribution(1e-6, 1e-3, log=True) for n in range(10)},
    **{f"model.size_{n}": IntDistribution(1, 512) for n in range(5)},
}


def measure(trials: int = _TRIALS) -> dict[str, float]:
    """Write the report of a study with 20 parameters.

    Args:
        trials: Number of trials; a third of them are pruned.

    Returns:
        `seconds`: time to write the report; `megabytes`: size of the page.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tracker = Tracker(f"sqlite:///{folder}/mlflow.db")
        study = optuna.create_study(
            study_name=_NAME,
            storage=open_storage(DatabaseUrl(f"sqlite:///{folder}/optuna.db", "--study.storage")),
            direction="maximize",
        )
        for key, value in {"agent": "criteria", "monitor": "val_metric", "n_trials": trials}.items():
            study.set_user_attr(key, value)
        dice = random.Random(17)
        experiment = tracker.experiment(f"criteria-{_NAME}")
        study.add_trials([_trial(dice, _run(tracker, experiment, number), number) for number in range(trials)])
        start = time.perf_counter()
        write_report(study, tracker, folder / "report")
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "megabytes": (folder / "report" / PAGE).stat().st_size / 1e6}


def _run(tracker: Tracker, experiment: str, number: int) -> str:
    run_id = tracker.start_run(experiment, f"trial_{number}", {"optuna_trial": str(number), "version.torch": "2"})
    tracker.log_params(run_id, {f"flag_{each}": each for each in range(60)} | {"trainer.max_epochs": _EPOCHS})
    return run_id


def _trial(dice: random.Random, run_id: str, number: int) -> FrozenTrial:
    pruned = number % 3 == 2
    skill = dice.random()
    values = {epoch: skill * (1 - 0.6 ** (epoch + 1)) for epoch in range(2 if pruned else _EPOCHS)}
    return create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=max(values.values()),
        params={name: _drawn(kind, dice) for name, kind in _KINDS.items()},
        distributions=dict(_KINDS),
        intermediate_values=values,
        user_attrs={"runtime_s": 10.0 * len(values), TrialKey.RUN_ID: run_id},
    )


def _drawn(kind: BaseDistribution, dice: random.Random) -> str | float:
    if isinstance(kind, CategoricalDistribution):
        return str(dice.choice(kind.choices))
    assert isinstance(kind, FloatDistribution | IntDistribution)
    return dice.randint(1, 512) if isinstance(kind, IntDistribution) else kind.low * 1000 ** dice.random()
