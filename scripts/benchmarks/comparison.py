"""This project beside what a user would take instead, and beside the floor, on the same pairs in one run."""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from lightning_hpo.config.trainer import native_precision
from scripts.benchmarks.figures import Figures, Ratio
from scripts.benchmarks.peak_memory import PeakMemory
from scripts.benchmarks.setting import Setting, prepare

__all__ = ["figures", "ratios", "run"]

_ROOT = Path(__file__).resolve().parents[2]
_NARROW = "bf16"


# Programs of this folder, with their arguments behind the setting's folder.
_CONTENDERS = {
    "this project, fp32": ("this_project", "fp32"),
    "this project, bf16": ("this_project", _NARROW),
    "the plan's loop": ("plan_loop",),
    "transformers, defaults": ("transformers_search", "defaults"),
    "transformers, by length": ("transformers_search", "grouped"),
    "transformers, by length, bf16": ("transformers_search", "best"),
    "bare loop, fp32": ("bare_loop", "fp32"),
    "bare loop, bf16": ("bare_loop", _NARROW),
}
# What is divided by what, and what the quotient should be.
_RATIOS: tuple[tuple[str, str, str, dict[str, float]], ...] = (
    ("a trial to the bare loop, fp32", "this project, fp32", "bare loop, fp32", {"most": 1.1}),
    ("a trial to the bare loop, bf16", "this project, bf16", "bare loop, bf16", {"most": 1.1}),
    ("transformers' defaults to a trial, bf16", "transformers, defaults", "this project, bf16", {"least": 3}),
    ("transformers by length to a trial, bf16", "transformers, by length", "this project, bf16", {"least": 2.4}),
    (
        "transformers at its best to a trial, bf16",
        "transformers, by length, bf16",
        "this project, bf16",
        {"least": 1.4},
    ),
    ("the plan's loop to a trial, bf16", "the plan's loop", "this project, bf16", {}),
)


def figures(posts: Path, annotations: Path, criteria: Path | None, *, repeats: int, **options: Any) -> Figures:
    """Run every contender `repeats` times in turn, and give the median of each figure.

    Args:
        posts: CSV of the posts to choose from.
        annotations: CSV of their annotations.
        criteria: YAML of their criteria; None: those of DSM-5.
        repeats: How often.
        options: Of the `Setting`.
    """
    narrow = native_precision("auto") == "bf16-mixed"
    chosen = {name: one for name, one in _CONTENDERS.items() if narrow or not name.endswith(_NARROW)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as temporary, Progress() as progress:
        task = progress.add_task("comparing", total=repeats * len(chosen))
        setting = prepare(Setting(folder=Path(temporary), **options), posts, annotations, criteria)
        for _ in range(repeats):
            for name, contender in chosen.items():
                progress.update(task, description=name)
                runs[name].append(run(setting, *contender))
                progress.advance(task)
    rows = {name: _medians(results, setting) for name, results in runs.items()}
    remark = "" if narrow else "bf16 is left out: this device does not compute with it by itself"
    return Figures(rows, ratios(rows), remark)


def run(setting: Setting, program: str, *arguments: str) -> dict[str, Any]:
    """Run one program of this folder in a process of its own, where no other has left anything.

    Returns:
        Its `Result`, and `peak_mib`, the most memory that its processes held together.
    """
    for left in (*setting.folder.glob("*.db*"), *setting.folder.glob("result.json")):
        left.unlink()
    subprocess.run(["rm", "-rf", setting.folder / "outputs", setting.folder / "mlruns"], check=True)
    command = [sys.executable, "-m", f"scripts.benchmarks.{program}", str(setting.folder), *arguments]
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "TOKENIZERS_PARALLELISM": "false"}
    with (setting.folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=setting.folder, env=environment, stdout=log, stderr=log)
        with PeakMemory(process.pid) as peak:
            status = process.wait()
    if status:
        raise SystemExit(f"{program} failed:\n{(setting.folder / 'log.txt').read_text('utf-8')[-2000:]}")
    result: dict[str, Any] = json.loads((setting.folder / "result.json").read_text(encoding="utf-8"))
    return {**result, "peak_mib": peak.mib}


def _medians(results: list[dict[str, Any]], setting: Setting) -> dict[str, float]:
    one = results[0]
    trial = statistics.median(seconds for result in results for seconds in result["trials_s"])
    between = [seconds for result in results for seconds in result["between_s"]]
    return {
        "seconds a trial": trial,
        "samples/s": setting.epochs * setting.train_pairs / trial,
        "tokens/s": (one["tokens"] - one["padding"]) / trial,
        "padding": one["padding"] / one["tokens"],
        "between s": statistics.median(between) if between else math.nan,
        "peak MiB, all processes": max(result["peak_mib"] for result in results),
        "gpu MiB": max(result["gpu_mib"] for result in results) or math.nan,
    }


def ratios(rows: Mapping[str, Mapping[str, float]]) -> list[Ratio]:
    """What is asked of this project."""
    found = [
        Ratio(name, rows[over]["seconds a trial"] / rows[under]["seconds a trial"], **wanted)
        for name, over, under, wanted in _RATIOS
        if over in rows and under in rows
    ]
    ours = rows["this project, fp32"]
    return [
        *found,
        Ratio("share of padding", ours["padding"], most=0.05),
        Ratio("seconds from one trial to the next one's first batch", ours["between s"], most=0.3),
    ]
