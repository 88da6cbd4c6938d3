"""Measures how much longer work takes while other programs use every CPU."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_hpo.hardware.cpus import usable_cpus
from scripts.benchmarks.demo_study import CONFIG, data_flags, seconds
from scripts.benchmarks.figures import Figures, Ratio

__all__ = ["figures", "spinning"]

_LIGHTNING_HPO = [sys.executable, "-m", "lightning_hpo"]
_MOST = 4.0
"""With one spinning process per CPU, half of the machine is left, and a wait for the scheduler comes on top."""


def figures() -> Figures:
    """Return the seconds of `demo-data` and of a trial's training, alone and while one process per CPU spins."""
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for column, others in (("alone, s", 0), ("busy, s", usable_cpus())):
            data = folder / f"others_{others}"
            trial = [*_LIGHTNING_HPO, "fit", "--config", str(CONFIG), *data_flags(data), "--trainer.logger=false"]
            trial += [f"--trainer.default_root_dir={data}"]
            with spinning(others):
                rows.setdefault("demo-data", {})[column] = seconds([*_LIGHTNING_HPO, "demo-data", str(data)])
                rows.setdefault("a demo trial", {})[column] = seconds(trial)
    ratios = [Ratio(f"{what}: busy ÷ alone", busy / alone, most=_MOST) for what, (alone, busy) in _pairs(rows)]
    return Figures(rows, ratios)


def _pairs(rows: dict[str, dict[str, float]]) -> Iterator[tuple[str, tuple[float, float]]]:
    for what, values in rows.items():
        alone, busy = values.values()
        yield what, (alone, busy)


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Run this many processes that never wait, within the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
