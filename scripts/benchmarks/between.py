"""Measures the time from the end of a trial to the first batch of the next, and the unavoidable part of it."""

import statistics
import time
from pathlib import Path

from lightning_hpo.agents.network.encoder import load_encoder
from scripts.benchmarks.demo_study import between, tuned
from scripts.benchmarks.figures import Figures, Ratio

__all__ = ["figures"]

_TRIALS = 8
_LOADS = 5


def figures() -> Figures:
    """Return medians in seconds, measured with the encoder of the demo."""
    with tuned(_TRIALS) as study:
        gap = statistics.median(between(study.last_runs(_TRIALS)))
        load_encoder(str(study.data / "encoder"))  # the first call imports modules
        loading = statistics.median(_seconds_of_loading(study.data / "encoder") for _ in range(_LOADS))
    return Figures(
        {"end of a trial to the first batch of the next": {"s": gap}, "loading the encoder": {"s": loading}},
        [Ratio("seconds from the end of a trial to the next first batch", gap, most=0.3)],
    )


def _seconds_of_loading(encoder: Path) -> float:
    began = time.perf_counter()
    load_encoder(str(encoder))
    return time.perf_counter() - began
