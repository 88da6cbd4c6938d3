"""Measures how long commands take to start, in wall time from the start of the process.

`fit` is measured up to its first batch, on a small corpus with a warm cache. For comparison, another process
imports only the modules that every `fit` needs: the config with Lightning, the agents and data modules with torch,
transformers and torchmetrics, and the module of the encoder. The two run in alternation.
"""

import statistics
import sys

from scripts.benchmarks.demo_study import CONFIG, data_flags, seconds, tuned
from scripts.benchmarks.figures import Figures, Ratio

__all__ = ["figures"]

_TIMES = 5
_TRIALS = 10
_IMPORTS = (
    "lightning_hpo.config.agent_cli",
    "lightning_hpo.agents",
    "lightning_hpo.data",
    "transformers.models.bert.modeling_bert",
)
_LIGHTNING_HPO = [sys.executable, "-m", "lightning_hpo"]


def figures() -> Figures:
    """Return medians of five runs, in seconds."""
    with tuned(_TRIALS) as study:
        fit = [*_LIGHTNING_HPO, "fit", "--config", str(CONFIG), *data_flags(study.data)]
        fit += ["--trainer.callbacks+=scripts.benchmarks.first_batch.EndAtFirstBatch"]
        fit += [f"--trainer.default_root_dir={study.trials}"]
        imports = [sys.executable, "-c", f"import os, {', '.join(_IMPORTS)}; os._exit(0)"]
        seconds(fit)  # fills the cache
        status = ["status", "--study", study.name, "--storage", study.storage]
        commands = {
            "an empty Python": [sys.executable, "-c", "pass"],
            "lightning-hpo --help": [*_LIGHTNING_HPO, "--help"],
            f"lightning-hpo status, {_TRIALS} trials": [*_LIGHTNING_HPO, *status],
            "imports alone": imports,
            "lightning-hpo fit, to its first batch": fit,
        }
        taken: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(_TIMES):
            for what, command in commands.items():
                taken[what].append(seconds(command))
    found = {what: statistics.median(each) for what, each in taken.items()}
    _, shown, status_s, alone, first_batch = found.values()
    return Figures(
        {what: {"s": value} for what, value in found.items()},
        [
            Ratio("seconds of --help", shown, most=0.3),
            Ratio("seconds of status", status_s, most=1.5),
            Ratio("first batch of fit ÷ imports alone", first_batch / alone, most=1.3),
        ],
    )
