"""Measures raw-text answers a second: a registered criteria model beside transformers' pipeline of the same encoder.

Both are given the whole list of (criterion, post) pairs, in alternation, and only posts that a window holds whole: the
pipeline would cut a longer one, of which a registered model reads all. The pipeline has the best of three batch sizes,
and float32, which is what it loads a model in.
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
    """Ask about posts with each of the nine criteria.

    Args:
        posts: Texts.
        number: About so many of them, the first that fit.
        max_length: Tokens of a window.
        rounds: How often each is measured.

    Returns:
        `pairs`; `answers_per_s`, the medians by who answers; `ratio`, of the registered model to the best pipeline.
    """
    with tempfile.TemporaryDirectory() as name, quiet_transformers():
        folder = Path(name)
        tokenizer = write_encoder(folder / "encoder", [*DSM5_CRITERIA.values(), *posts], max_length)
        fitting = (post for post in posts if _longest(tokenizer, post) <= max_length)
        pairs = [(criterion, post) for post in islice(fitting, number) for criterion in DSM5_CRITERIA.values()]
        answers = _registered(folder, max_length, pairs) | _pipelines(folder / "encoder", max_length, pairs)
        seconds = _seconds(answers, rounds)
    rates = {who: len(pairs) / statistics.median(taken) for who, taken in seconds.items()}
    own = max(rate for who, rate in rates.items() if who.startswith(_OWN))
    best = max(rate for who, rate in rates.items() if not who.startswith(_OWN))
    return {"pairs": len(pairs), "answers_per_s": rates, "ratio": own / best}


def _longest(tokenizer: Any, post: str) -> int:
    return max(len(tokenizer(criterion, post, verbose=False)["input_ids"]) for criterion in DSM5_CRITERIA.values())


def _registered(folder: Path, max_length: int, pairs: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    encoder = str(folder / "encoder")
    corpus = SimpleNamespace(criteria=dict(DSM5_CRITERIA))
    data = SimpleNamespace(tokenizer=encoder, max_length=max_length, stride=max_length // 4, corpus=corpus)
    table = pd.DataFrame(pairs, columns=["criterion", "post"])
    answers: dict[str, Callable[[], Any]] = {}
    for precision in dict.fromkeys(("32-true", native_precision("cpu"))):
        agent = CriteriaAgent(encoder)
        agent.trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
        save_model(str(folder / precision), module=agent, datamodule=data)
        model = mlflow.pyfunc.load_model(str(folder / precision))
        answers[f"{_OWN}, {precision}"] = lambda model=model: model.predict(table)  # type: ignore[misc]
    return answers


def _pipelines(encoder: Path, max_length: int, pairs: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    model = AutoModelForSequenceClassification.from_pretrained(encoder)
    answer = pipeline("text-classification", model=model, tokenizer=load_tokenizer(str(encoder)), device="cpu")
    asked = [{"text": criterion, "text_pair": post} for criterion, post in pairs]
    cut = {"truncation": "only_second", "max_length": max_length}
    return {
        f"pipeline, batch size {size}": lambda size=size: answer(asked, batch_size=size, **cut)  # type: ignore[misc]
        for size in _BATCH_SIZES
    }


def _seconds(answers: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, after one that does not count."""
    seconds: dict[str, list[float]] = {who: [] for who in answers}
    for _ in range(rounds + 1):
        for who, ask in answers.items():
            start = time.perf_counter()
            ask()
            seconds[who].append(time.perf_counter() - start)
    return {who: taken[1:] for who, taken in seconds.items()}
