"""What a study's length costs: a few trials and ten thousand behind it, in both databases, measured in alternation.

The fixed cost of a trial is all of it, with two batches of training and two of validation left in; the sampler is one
that looks at nothing, and the cost of the one that is shipped is shown apart. What is read once when a study starts is
a cost of the study, and has a row of its own.
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

_OWN = 3  # as many as keep their weights
_ROUNDS, _TRIALS, _ASKED = 3, 5, 7
_LOOKS_AT_NOTHING = "--study.sampler=optuna.samplers.RandomSampler"
_MOST = 1.5
_TRIAL, _STATUS, _REGISTER = "a trial but for its training", "status", "register"


def figures(few: int = 10, many: int = 10_000) -> Figures:
    """Seconds of all that could grow with the number of trials.

    Args:
        few: Trials behind the one study.
        many: Trials behind the other.
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
            found["the shipped sampler, for a trial"][behind] = _sampling(study)
    medians = {what: [statistics.median(taken[behind]) for behind in studies] for what, taken in found.items()}
    columns = (f"{few:,} trials, s", f"{many:,} trials, s", "ratio")
    return Figures(
        {what: dict(zip(columns, (one, other, other / one), strict=True)) for what, (one, other) in medians.items()},
        [
            Ratio(f"{what}: {many:,} trials to {few:,}", medians[what][1] / medians[what][0], most=_MOST)
            for what in (_TRIAL, _STATUS, _REGISTER)
        ],
    )


def _study(folder: Path, data: Path, behind: int) -> DemoStudy:
    study = DemoStudy(folder, data)
    study.tune(_OWN, _LOOKS_AT_NOTHING)
    study.register(0)  # the first time, it makes a version
    copy_trials(study, behind)
    return study


def _measured(study: DemoStudy, behind: int) -> dict[str, list[float]]:
    began = time.time()
    study.tune(behind + _TRIALS, _LOOKS_AT_NOTHING)
    runs = study.last_runs(_TRIALS)
    starts = [run.info.start_time / 1000 for run in runs]
    return {
        "start of tune to its first trial": [starts[0] - began],
        _TRIAL: [then - start for start, then in pairwise(starts)],
        "of it, end of a trial to first batch of the next": between(runs),
        _STATUS: [study.status()],
        _REGISTER: [study.register(0)],
    }


def _sampling(demo: DemoStudy) -> list[float]:
    """Seconds in which the shipped sampler draws a trial's values, after a first time that reads what is there."""
    ranges = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["search_space"]
    config = yaml.safe_load((demo.trials / "trial_0" / "config.yaml").read_text(encoding="utf-8"))
    space = SearchSpace(ranges, config)
    study = optuna.load_study(
        study_name=demo.name,
        storage=open_storage(DatabaseUrl(demo.storage, "--study.storage")),
        sampler=build_sampler(None, seed=17),
    )
    taken = []
    for _ in range(_ASKED):
        began = time.perf_counter()
        trial = study.ask()
        space.suggest(trial)
        taken.append(time.perf_counter() - began)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return taken[1:]
