"""Compares this project with the alternatives and a bare loop, on the same pairs in one run."""

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


# Modules of this folder and their arguments after the folder of the setting.
_CONTENDERS = {
    "this project, fp32": ("this_project", "fp32"),
    "this project, bf16": ("this_project", _NARROW),
    "a plain study's loop": ("plain_loop",),
    "transformers, defaults": ("transformers_search", "defaults"),
    "transformers, by length": ("transformers_search", "grouped"),
    "transformers, by length, bf16": ("transformers_search", "best"),
    "bare loop, fp32": ("bare_loop", "fp32"),
    "bare loop, bf16": ("bare_loop", _NARROW),
}
# Name, numerator, denominator, target.
_RATIOS: tuple[tuple[str, str, str, dict[str, float]], ...] = (
    ("trial ÷ bare loop, fp32", "this project, fp32", "bare loop, fp32", {"most": 1.1}),
    ("trial ÷ bare loop, bf16", "this project, bf16", "bare loop, bf16", {"most": 1.1}),
    ("transformers, defaults ÷ trial, bf16", "transformers, defaults", "this project, bf16", {"least": 3}),
    ("transformers, by length ÷ trial, bf16", "transformers, by length", "this project, bf16", {"least": 2.4}),
    (
        "transformers, by length, bf16 ÷ trial, bf16",
        "transformers, by length, bf16",
        "this project, bf16",
        {"least": 1.4},
    ),
    ("a plain study's loop ÷ trial, bf16", "a plain study's loop", "this project, bf16", {}),
)


def figures(posts: Path, annotations: Path, criteria: Path | None, *, repeats: int, **options: Any) -> Figures:
    """Run every contender `repeats` times in turn, and return the median of each figure.

    Args:
        posts: CSV file of posts.
        annotations: CSV file of annotations.
        criteria: YAML file of criteria, or None for DSM-5.
        repeats: Number of rounds.
        options: Fields of `Setting`.
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
    remark = "" if narrow else "bf16 is left out: this device does not support it natively"
    return Figures(rows, ratios(rows), remark)


def run(setting: Setting, program: str, *arguments: str) -> dict[str, Any]:
    """Run one module of this folder in a separate process, after removing the files of earlier ones.

    Returns:
        The fields of its `Result`, and `peak_mib`, the peak memory of all its processes together.
    """
    for old in (*setting.folder.glob("*.db*"), *setting.folder.glob("result.json")):
        old.unlink()
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
        "s per trial": trial,
        "samples/s": setting.epochs * setting.train_pairs / trial,
        "tokens/s": (one["tokens"] - one["padding"]) / trial,
        "padding": one["padding"] / one["tokens"],
        "s between trials": statistics.median(between) if between else math.nan,
        "MiB, all processes": max(result["peak_mib"] for result in results),
        "GPU MiB": max(result["gpu_mib"] for result in results) or math.nan,
    }


def ratios(rows: Mapping[str, Mapping[str, float]]) -> list[Ratio]:
    """Return the ratios of this project and their targets."""
    found = [
        Ratio(name, rows[over]["s per trial"] / rows[under]["s per trial"], **wanted)
        for name, over, under, wanted in _RATIOS
        if over in rows and under in rows
    ]
    ours = rows["this project, fp32"]
    return [
        *found,
        Ratio("share of padding", ours["padding"], most=0.05),
        Ratio("seconds from the end of a trial to the next first batch", ours["s between trials"], most=0.3),
    ]
