"""Throughput of raw-text predictions: a registered criteria model against transformers' pipeline with its encoder.

Both get the same list of (criterion, post) pairs, in alternation. All posts fit in one window, since the pipeline would
truncate longer ones. The pipeline uses the best of three batch sizes, and float32, in which it loads models.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
from transformers import AutoModelForSequenceClassification, pipeline

from lightning_hpo.agents import CriteriaAgent
from lightning_hpo.agents.network.encoder import quiet_transformers
from lightning_hpo.config.trainer import Trainer, native_precision
from lightning_hpo.data.criteria import DSM5_CRITERIA
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.serving.flavor import save_model
from scripts.benchmarks.setting import write_encoder

__all__ = ["measure"]

_OWN = "registered model"
_BATCH_SIZES = (1, 8, 32)


def measure(posts: Sequence[str], number: int, *, max_length: int = 512, rounds: int = 5) -> dict[str, Any]:
    """Measure predictions for posts with each of the nine criteria.

    Args:
        posts: Texts of posts.
        number: Number of posts to use: the first that fit in a window.
        max_length: Number of tokens in a window.
        rounds: Number of measurements of each model.

    Returns:
        `pairs`; `answers_per_s`, the median for each model; `ratio`, of the registered model to the best pipeline.
    """
    with tempfile.TemporaryDirectory() as root, quiet_transformers():
        folder = Path(root)
        tokenizer = write_encoder(folder / "encoder", [*DSM5_CRITERIA.values(), *posts], max_length)
        fitting = (post for post in posts if _longest(tokenizer, post) <= max_length)
        pairs = [(criterion, post) for post in islice(fitting, number) for criterion in DSM5_CRITERIA.values()]
        models = _registered(folder, max_length, pairs) | _pipelines(folder / "encoder", max_length, pairs)
        seconds = _seconds(models, rounds)
    rates = {name: len(pairs) / statistics.median(taken) for name, taken in seconds.items()}
    own = max(rate for name, rate in rates.items() if name.startswith(_OWN))
    best = max(rate for name, rate in rates.items() if not name.startswith(_OWN))
    return {"pairs": len(pairs), "answers_per_s": rates, "ratio": own / best}


def _longest(tokenizer: Any, post: str) -> int:
    return max(len(tokenizer(criterion, post, verbose=False)["input_ids"]) for criterion in DSM5_CRITERIA.values())


def _registered(folder: Path, max_length: int, pairs: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    encoder = str(folder / "encoder")
    corpus = SimpleNamespace(criteria=dict(DSM5_CRITERIA))
    data = SimpleNamespace(tokenizer=encoder, max_length=max_length, stride=max_length // 4, corpus=corpus)
    table = pd.DataFrame(pairs, columns=["criterion", "post"])
    models: dict[str, Callable[[], Any]] = {}
    for precision in dict.fromkeys(("32-true", native_precision("cpu"))):
        agent = CriteriaAgent(encoder)
        agent.trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
        save_model(str(folder / precision), module=agent, datamodule=data)
        model = mlflow.pyfunc.load_model(str(folder / precision))
        models[f"{_OWN}, {precision}"] = lambda model=model: model.predict(table)  # type: ignore[misc]
    return models


def _pipelines(encoder: Path, max_length: int, pairs: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    model = AutoModelForSequenceClassification.from_pretrained(encoder)
    predict = pipeline("text-classification", model=model, tokenizer=load_tokenizer(str(encoder)), device="cpu")
    rows = [{"text": criterion, "text_pair": post} for criterion, post in pairs]
    truncation = {"truncation": "only_second", "max_length": max_length}
    return {
        f"pipeline, batch size {size}": lambda size=size: predict(rows, batch_size=size, **truncation)  # type: ignore[misc]
        for size in _BATCH_SIZES
    }


def _seconds(models: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, without the first, which warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, predict in models.items():
            start = time.perf_counter()
            predict()
            seconds[name].append(time.perf_counter() - start)
    return {name: taken[1:] for name, taken in seconds.items()}
