"""This project beside what a user would take instead, and beside the floor, on the same pairs in one run."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from rich.table import Table

from lightning_hpo.trainer import native_precision
from scripts.benchmarks.setting import Setting, prepare

__all__ = ["Figures", "compare", "device", "ratios", "table"]

_ROOT = Path(__file__).resolve().parents[2]
_NARROW = "bf16"


@dataclass(frozen=True)
class _Contender:
    program: str
    arguments: tuple[str, ...] = ()


_CONTENDERS = {
    "this project, fp32": _Contender("this_project", ("fp32",)),
    "this project, bf16": _Contender("this_project", (_NARROW,)),
    "the plan's loop": _Contender("plan_loop"),
    "transformers, defaults": _Contender("transformers_search", ("defaults",)),
    "transformers, by length": _Contender("transformers_search", ("grouped",)),
    "transformers, by length, bf16": _Contender("transformers_search", ("best",)),
    "bare loop, fp32": _Contender("bare_loop", ("fp32",)),
    "bare loop, bf16": _Contender("bare_loop", (_NARROW,)),
}
# What is divided by what, and what the quotient should be.
_RATIOS = (
    ("a trial to the bare loop, fp32", "this project, fp32", "bare loop, fp32", "at most 1.10"),
    ("a trial to the bare loop, bf16", "this project, bf16", "bare loop, bf16", "at most 1.10"),
    ("transformers' defaults to a trial, bf16", "transformers, defaults", "this project, bf16", "at least 3"),
    ("transformers by length to a trial, bf16", "transformers, by length", "this project, bf16", "at least 2.4"),
    (
        "transformers at its best to a trial, bf16",
        "transformers, by length, bf16",
        "this project, bf16",
        "at least 1.4",
    ),
    ("the plan's loop to a trial, bf16", "the plan's loop", "this project, bf16", ""),
)

Figures = dict[str, dict[str, float]]


def compare(posts: Path, annotations: Path, criteria: Path | None, *, repeats: int, **options: Any) -> Figures:
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
                runs[name].append(_run(setting, contender))
                progress.advance(task)
    return {name: _medians(results, setting) for name, results in runs.items()}


def _run(setting: Setting, contender: _Contender) -> dict[str, Any]:
    for left in (*setting.folder.glob("*.db*"), *setting.folder.glob("result.json")):
        left.unlink()
    subprocess.run(["rm", "-rf", setting.folder / "outputs", setting.folder / "mlruns"], check=True)
    command = [
        sys.executable,
        "-m",
        f"scripts.benchmarks.{contender.program}",
        str(setting.folder),
        *contender.arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "TOKENIZERS_PARALLELISM": "false"}
    with (setting.folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=setting.folder, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{contender.program} failed:\n{(setting.folder / 'log.txt').read_text('utf-8')[-2000:]}")
    result: dict[str, Any] = json.loads((setting.folder / "result.json").read_text(encoding="utf-8"))
    result["peak_mib"] = result["peak_mib"] or _mib(used)
    return result


def _mib(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _medians(results: list[dict[str, Any]], setting: Setting) -> dict[str, float]:
    one = results[0]
    trial = statistics.median(seconds for result in results for seconds in result["trials_s"])
    between = [seconds for result in results for seconds in result["between_s"]]
    return {
        "seconds a trial": trial,
        "samples/s": setting.epochs * setting.train_pairs / trial,
        "tokens/s": (one["tokens"] - one["padding"]) / trial,
        "padding": one["padding"] / one["tokens"],
        "between s": statistics.median(between) if between else float("nan"),
        "peak MiB": max(result["peak_mib"] for result in results),
    }


def ratios(figures: Figures) -> list[tuple[str, float, str]]:
    """What is asked of this project: a name, the figure, and what it should be."""
    found = [
        (name, figures[over]["seconds a trial"] / figures[under]["seconds a trial"], wanted)
        for name, over, under, wanted in _RATIOS
        if over in figures and under in figures
    ]
    ours: Mapping[str, float] = figures["this project, fp32"]
    return [
        *found,
        ("share of padding", ours["padding"], "below 0.05"),
        ("seconds from one trial to the next one's first batch", ours["between s"], "below 0.3"),
    ]


def table(figures: Figures) -> Table:
    """A row a contender."""
    shown = Table("contender", *next(iter(figures.values())), box=None)
    for name, values in figures.items():
        shown.add_row(
            name,
            f"{values['seconds a trial']:.1f}",
            f"{values['samples/s']:.1f}",
            f"{values['tokens/s']:.0f}",
            f"{values['padding']:.1%}",
            f"{values['between s']:.2f}",
            f"{values['peak MiB']:.0f}",
        )
    return shown


def device() -> str:
    """What all of it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return f"{known.get('cpu_name', 'a CPU')}, {torch.get_num_threads()} threads"
