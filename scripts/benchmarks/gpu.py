"""Trials an hour on one graphics gpu: one, two and four at the same time, and with and without torch.compile.

The encoder has the size of roberta-base, with random weights, in bf16. What compiling takes is in its figures, as it is
in a study.
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
    """The flags of `tune`, by what is shown of them."""
    ways: dict[str, tuple[str, ...]] = {}
    for compiled in (False, True):
        for together in (1, 2, 4):
            name = f"{together} at a time{', compiled' * compiled}"
            flags = (f"--study.workers={together}", f"--study.per_device={together}", "--study.devices=[0]")
            ways[name] = (*flags, f"--model.compile={str(compiled).lower()}")
    return ways


def figures(posts: Path, annotations: Path, criteria: Path | None) -> Figures:
    """Trials an hour; without a gpu, the commands that would be run.

    Args:
        posts: CSV of the posts to choose from.
        annotations: CSV of their annotations.
        criteria: YAML of their criteria; None: those of DSM-5.
    """
    if not torch.cuda.is_available():
        commands = (
            shlex.join(["lightning-hpo", "tune", "--trainer.precision=bf16-mixed", *f]) for f in plan().values()
        )
        return Figures({}, remark="\n".join(["there is no graphics gpu; with one, it would run", *commands]))
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        setting = Setting(folder=Path(temporary), trials=_TRIALS, **_LENGTH, **_ENCODER)
        setting = prepare(setting, posts, annotations, criteria)
        for name, flags in plan().items():
            result = run(setting, "this_project", "bf16", *flags)
            rows[name] = {
                "trials/h": 3600 * _TRIALS / result["whole_s"],
                "most MiB of the gpu in one": result["gpu_mib"],
            }
    alone, _, _, compiled, *_ = (row["trials/h"] for row in rows.values())
    best = max(row["trials/h"] for row in rows.values())
    ratios = [Ratio("the best of these to one at a time", best / alone), Ratio("compiled to not", compiled / alone)]
    return Figures(rows, ratios)
