"""Measures how costs grow with a study: few trials and ten thousand in both databases, measured in alternation.

The fixed cost of a trial includes two training and two validation batches. These studies use a random sampler; the
default sampler has a separate row. Reading a study once at its start also has a separate row.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import optuna
import yaml

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.search.samplers import build_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.connection import open_storage
from scripts.benchmarks.demo_study import CONFIG, DemoStudy, between, write_data
from scripts.benchmarks.figures import Figures, Ratio
from scripts.benchmarks.trial_copies import copy_trials

__all__ = ["figures"]

_OWN = 3  # number of trials that keep their weights
_ROUNDS, _TRIALS, _ASKED = 3, 5, 7
_RANDOM_SAMPLER = "--study.sampler=optuna.samplers.RandomSampler"
_MOST = 1.5
_TRIAL, _STATUS, _REGISTER = "fixed cost of a trial", "status", "register"


def figures(few: int = 10, many: int = 10_000) -> Figures:
    """Return the seconds of all steps that could grow with the number of trials.

    Args:
        few: Trials in the small study.
        many: Trials in the large study.
    """
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name, "data"))
        studies = {behind: _study(Path(name, str(behind)), Path(name, "data"), behind) for behind in (few, many)}
        found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for turn in range(_ROUNDS):
            for behind, study in studies.items():
                for what, taken in _measured(study, behind + turn * _TRIALS).items():
                    found[what][behind] += taken
        for behind, study in studies.items():
            found["default sampler, per trial"][behind] = _sampling(study)
    medians = {what: [statistics.median(taken[behind]) for behind in studies] for what, taken in found.items()}
    columns = (f"{few:,} trials, s", f"{many:,} trials, s", "ratio")
    return Figures(
        {what: dict(zip(columns, (one, other, other / one), strict=True)) for what, (one, other) in medians.items()},
        [
            Ratio(f"{what}: {many:,} trials ÷ {few:,}", medians[what][1] / medians[what][0], most=_MOST)
            for what in (_TRIAL, _STATUS, _REGISTER)
        ],
    )


def _study(folder: Path, data: Path, behind: int) -> DemoStudy:
    study = DemoStudy(folder, data)
    study.tune(_OWN, _RANDOM_SAMPLER)
    study.register(0)  # the first call creates a version
    copy_trials(study, behind)
    return study


def _measured(study: DemoStudy, behind: int) -> dict[str, list[float]]:
    began = time.time()
    study.tune(behind + _TRIALS, _RANDOM_SAMPLER)
    runs = study.last_runs(_TRIALS)
    starts = [run.info.start_time / 1000 for run in runs]
    return {
        "start of tune to its first trial": [starts[0] - began],
        _TRIAL: [then - start for start, then in pairwise(starts)],
        "part of it: end of a trial to first batch of the next": between(runs),
        _STATUS: [study.status()],
        _REGISTER: [study.register(0)],
    }


def _sampling(demo: DemoStudy) -> list[float]:
    """Return the seconds the default sampler takes per trial, without the first call, which reads the database."""
    ranges = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["search_space"]
    config = yaml.safe_load((demo.trials / "trial_0" / "config.yaml").read_text(encoding="utf-8"))
    space = SearchSpace(ranges, config)
    study = optuna.load_study(
        study_name=demo.name,
        storage=open_storage(DatabaseUrl(demo.storage, "--study.storage")),
        sampler=build_sampler(None, 17, space),
    )
    taken = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        trial = study.ask()
        space.suggest(trial)
        taken.append(time.perf_counter() - began)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return taken[1:]
