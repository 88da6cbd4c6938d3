"""Measures raw-text answers a second: a registered criteria model beside transformers' pipeline of the same encoder.

Both are given the whole list of (criterion, post) pairs, in alternation; the pipeline with the best of three batch
sizes. It cuts posts at the length of a window, and a registered model reads all of them: where posts are longer than a
window, the model does more.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, pipeline

from lightning_hpo.agents import CriteriaAgent
from lightning_hpo.agents.encoder import quiet_transformers
from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.demo_encoder import write_encoder
from lightning_hpo.data.dsm5 import DSM5_CRITERIA
from lightning_hpo.data.redsm5 import read_posts
from lightning_hpo.data.tokenizers import load_tokenizer
from lightning_hpo.serving import save_model

__all__ = ["measure"]

_BATCH_SIZES = (1, 8, 32)
_SEED = 17


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--posts", type=Path, help="a CSV with post_id,text; left out: the demo's made-up posts")
    parser.add_argument("--number", type=int, default=60, help="so many posts, each with nine criteria")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    posts = list(read_posts(str(given.posts)).values()) if given.posts else DemoCorpus(given.number, _SEED).texts()
    size = {"layers": given.layers, "width": given.width, "max_length": given.max_length}
    print(json.dumps(measure(posts[: given.number], **size, rounds=given.rounds), indent=2))


def measure(
    posts: Sequence[str], *, layers: int = 4, width: int = 256, max_length: int = 512, rounds: int = 5
) -> dict[str, Any]:
    """Ask about each post with each of the nine criteria.

    Args:
        posts: Texts.
        layers: Layers of the encoder, whose weights are random.
        width: Its width, a multiple of 64.
        max_length: Tokens of a window.
        rounds: How often each is measured.

    Returns:
        `pairs`; `answers_per_s`, the medians by who answers; `ratio`, of the registered model to the best pipeline.
    """
    pairs = [(criterion, post) for post in posts for criterion in DSM5_CRITERIA.values()]
    with tempfile.TemporaryDirectory() as name, quiet_transformers():
        folder = Path(name)
        _write_encoder(folder / "encoder", layers, width)
        answers = _registered(folder, max_length, pairs) | _pipelines(folder / "encoder", max_length, pairs)
        seconds = _seconds(answers, rounds)
    rates = {who: len(pairs) / statistics.median(taken) for who, taken in seconds.items()}
    own = rates.pop("registered model")
    best = max(rates.values())
    return {"pairs": len(pairs), "answers_per_s": {"registered model": own, **rates}, "ratio": own / best}


def _write_encoder(folder: Path, layers: int, width: int) -> None:
    write_encoder(folder, _SEED, steps=1)  # for its tokenizer
    config = BertConfig(
        vocab_size=len(load_tokenizer(str(folder))),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    torch.manual_seed(_SEED)
    BertModel(config).save_pretrained(folder)


def _registered(folder: Path, max_length: int, pairs: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Any]]:
    encoder = str(folder / "encoder")
    corpus = SimpleNamespace(criteria=dict(DSM5_CRITERIA))
    data = SimpleNamespace(tokenizer=encoder, max_length=max_length, stride=max_length // 4, corpus=corpus)
    save_model(str(folder / "model"), module=CriteriaAgent(encoder), datamodule=data)
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    table = pd.DataFrame(pairs, columns=["criterion", "post"])
    return {"registered model": lambda: model.predict(table)}


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


if __name__ == "__main__":
    main()
