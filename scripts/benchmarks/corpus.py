"""Measures first start, second start, batch rates and memory for a corpus of many posts.

The posts are synthetic: half have more than 100 words, and one in a hundred more than 1,000. Every start runs in a
separate process with a separate memory peak. Compare the rates with those of a small corpus from the same run.
"""

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data import CriteriaDataModule
from lightning_hpo.data.criteria import DSM5_CRITERIA

__all__ = ["figures"]

_SEED = 17
_WORDS = 5000
_MEDIAN_WORDS, _SPREAD, _MOST_WORDS = 100, 1.0, 7000
_ANNOTATED = 0.07
_BATCHES = 2000
_WORKERS = 2
_POSTS_AT_ONCE = 1000

Figures = dict[str, float]


def figures(posts: int) -> Figures:
    """Return seconds, rates and memory for a number of posts. The names contain the units.

    Rates use the CPU time of the process, which other programs do not affect. Starts are also measured in wall time.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_corpus(folder, posts)
        _write_tokenizer(folder / "encoder")
        first, second, workers = (_measured(how, folder) for how in ("start", "start", "workers"))
    return {
        "first start s": first["setup_s"],
        "first start posts/s": posts / first["setup_cpu_s"],
        "first start peak GB": first["peak_gb"],
        "second start s": second["setup_s"],
        "second start CPU s": second["setup_cpu_s"],
        "second start peak GB": second["peak_gb"],
        "training batches/s": second["train_rate"],
        "validation batches/s": second["val_rate"],
        "peak GB with a loader's workers": workers["peak_gb"],
        "private GB of each worker": workers["worker_gb"],
    }


def main() -> None:
    """Run one measurement in this process, and print it as JSON."""
    how, folder = sys.argv[1:]
    print(json.dumps(_MEASURES[how](Path(folder))))


def _write_corpus(folder: Path, posts: int) -> None:
    draw = np.random.default_rng(_SEED)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(draw.choice(letters, size)) for size in draw.integers(2, 9, _WORDS)]
    with (
        (folder / "posts.csv").open("w", encoding="utf-8", newline="") as texts,
        (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as annotations,
    ):
        post_rows, annotation_rows = csv.writer(texts), csv.writer(annotations)
        post_rows.writerow(("post_id", "text"))
        annotation_rows.writerow(("post_id", "sentence_text", "DSM5_symptom", "status"))
        for first in range(0, posts, _POSTS_AT_ONCE):
            for number, own in enumerate(_drawn_words(draw, min(_POSTS_AT_ONCE, posts - first)), start=first):
                text = [words[word] for word in own]
                post_rows.writerow((f"post_{number}", " ".join(text)))
                if draw.random() < _ANNOTATED:
                    start = int(draw.integers(max(1, len(text) - 11)))
                    label = str(draw.choice(list(DSM5_CRITERIA)))
                    sentence = " ".join(text[start : start + 11])
                    annotation_rows.writerow((f"post_{number}", sentence, label, int(draw.random() < 0.8)))
    (folder / "words.txt").write_text("\n".join(words), encoding="utf-8")


def _drawn_words(draw: np.random.Generator, posts: int) -> Iterator[list[int]]:
    """Draw the word numbers of some posts. Low numbers are far more frequent than high ones."""
    sizes = np.clip(draw.lognormal(np.log(_MEDIAN_WORDS), _SPREAD, posts), 2, _MOST_WORDS).astype(int)
    drawn = (_WORDS * draw.random(sizes.sum()) ** 3).astype(int)
    return (own.tolist() for own in np.split(drawn, np.cumsum(sizes)[:-1]))


def _write_tokenizer(folder: Path) -> None:
    """Write the fastest possible tokenizer, because tokenization is not measured."""
    words = (folder.parent / "words.txt").read_text(encoding="utf-8").split()
    known = [word for text in DSM5_CRITERIA.values() for word in text.split()]
    pieces = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *known])
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(piece, vocabulary[piece]) for piece in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", special)
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="[PAD]", model_max_length=512
    ).save_pretrained(folder)


def _measured(how: str, folder: Path) -> Figures:
    command = [sys.executable, __file__, how, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def _start(folder: Path) -> Figures:
    """Measure a start, whole epochs of training, and batches from the whole validation split."""
    clock, processor = time.perf_counter(), time.process_time()
    data = _module(folder)
    data.setup("fit")
    setup = {"setup_s": time.perf_counter() - clock, "setup_cpu_s": time.process_time() - processor}
    scored = data.val_dataloader().dataset
    places = np.linspace(0, len(scored) - 1, _BATCHES).astype(int)  # type: ignore[arg-type]
    # Whole epochs, because drawing an epoch is a cost of all its batches.
    epochs = -(-_BATCHES // len(data.train_dataloader().sampler))  # type: ignore[arg-type]
    rates = {
        "train_rate": _rate(_train_batches(data, epochs)),
        "val_rate": _rate(scored[int(place)] for place in places),
    }
    return {**setup, **rates, "peak_gb": _peak()}


def _workers(folder: Path) -> Figures:
    """Measure the peak private memory of loader workers after some batches."""
    data = _module(folder, num_workers=_WORKERS)
    data.setup("fit")
    batches = _train_batches(data, epochs=_BATCHES)
    for _ in islice(batches, _BATCHES // 10):
        pass
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    return {"worker_gb": max(_private(int(child)) for child in listed), "peak_gb": _peak()}


_MEASURES = {"start": _start, "workers": _workers}


def _module(folder: Path, **changed: Any) -> CriteriaDataModule:
    files = {"tokenizer": "encoder", "posts": "posts.csv", "annotations": "annotations.csv"}
    given: dict[str, Any] = {name: str(folder / file) for name, file in files.items()}
    return CriteriaDataModule(**given, max_length=256, stride=64, **changed)


def _train_batches(data: CriteriaDataModule, epochs: int) -> Iterator[Any]:
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        yield from loader


def _rate(batches: Iterator[Any]) -> float:
    before = time.process_time()
    made = sum(1 for _ in batches)
    return made / (time.process_time() - before)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _private(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 2**20


if __name__ == "__main__":
    main()
