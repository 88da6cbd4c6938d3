"""Measures trials per hour on one GPU: one, two and four at the same time, with and without torch.compile.

The encoder has the size of roberta-base, with random weights, in bf16. The figures include compilation, as in a study.
"""

import shlex
import tempfile
from pathlib import Path

import torch

from scripts.benchmarks.comparison import run
from scripts.benchmarks.figures import Figures, Ratio
from scripts.benchmarks.setting import Setting, prepare

__all__ = ["figures", "plan"]

_TRIALS = 8
_ENCODER = {"layers": 12, "width": 768}
_LENGTH = {"train_pairs": 480, "epochs": 3}


def plan() -> dict[str, tuple[str, ...]]:
    """Return the flags of `tune` for each row of the table."""
    ways: dict[str, tuple[str, ...]] = {}
    for compiled in (False, True):
        for together in (1, 2, 4):
            name = f"{together} at a time{', compiled' * compiled}"
            flags = (f"--study.workers={together}", f"--study.per_device={together}", "--study.devices=[0]")
            ways[name] = (*flags, f"--model.compile={str(compiled).lower()}")
    return ways


def figures(posts: Path, annotations: Path, criteria: Path | None) -> Figures:
    """Return trials per hour, or without a GPU the commands to run.

    Args:
        posts: CSV file of posts.
        annotations: CSV file of annotations.
        criteria: YAML file of criteria, or None for DSM-5.
    """
    if not torch.cuda.is_available():
        commands = (
            shlex.join(["lightning-hpo", "tune", "--trainer.precision=bf16-mixed", *f]) for f in plan().values()
        )
        return Figures({}, remark="\n".join(["no GPU found; with a GPU, this part runs", *commands]))
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        setting = Setting(folder=Path(temporary), trials=_TRIALS, **_LENGTH, **_ENCODER)
        setting = prepare(setting, posts, annotations, criteria)
        for name, flags in plan().items():
            result = run(setting, "this_project", "bf16", *flags)
            rows[name] = {
                "trials/h": 3600 * _TRIALS / result["whole_s"],
                "peak GPU MiB of a trial": result["gpu_mib"],
            }
    alone, _, _, compiled, *_ = (row["trials/h"] for row in rows.values())
    best = max(row["trials/h"] for row in rows.values())
    ratios = [Ratio("best row ÷ one at a time", best / alone), Ratio("compiled ÷ not compiled", compiled / alone)]
    return Figures(rows, ratios)
