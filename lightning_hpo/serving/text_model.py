"""The registered model as MLflow's pyfunc: criteria and posts in, labels or spans out.

A model brings this module along, and what it imports of this package (`served_code`): so neither this package nor
Lightning nor transformers is needed where a model answers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from torch import Tensor, fx

from lightning_hpo.agents.pair_decoding import met_rows, pair_probabilities
from lightning_hpo.agents.settings import outside, raise_problems
from lightning_hpo.agents.spans.decoding import Decoding, answer_rows, decode_pairs
from lightning_hpo.data.batching import pair_batches
from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.tokenized_text import TokenizedText
from lightning_hpo.data.windows import Windows
from lightning_hpo.exceptions import InputError
from lightning_hpo.hardware.bf16 import computes_bf16, quicken_attention, round_weights

__all__ = ["COLUMNS", "INPUTS", "MLMODEL", "SETTINGS", "TOKENIZER", "ServingSettings", "TextModel"]

COLUMNS = ("criterion", "post")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MLMODEL = "MLmodel"
SETTINGS = "serving.json"
TOKENIZER = "tokenizer"

# More do not stay in a processor's caches, and each takes longer.
_WINDOWS_AT_ONCE = 32
_TOKENS_AT_ONCE = 2048
_BF16 = "bf16-mixed"
# What each agent answers, and with which of MLflow's types.
_ANSWERS = {
    "criteria": {"met": "boolean", "probability": "double"},
    "evidence": {"start": "long", "end": "long", "text": "string", "score": "double", "null": "boolean"},
}
# What an agent that may give several answers adds: JSON, since a table of MLflow's scoring server holds no lists.
_FURTHER_ANSWERS = {"answers": "string"}
# pandas' types for MLflow's.
_TYPES = {"boolean": "bool", "double": "float64", "long": "int64", "string": "object"}
_MOST_PROBLEMS = 20
# What a call may set: the least and the most.
_BOUNDS = {"threshold": (0, 1), "null_threshold": (-1e38, 1e38), "top_k": (1, 1000)}


@dataclass(frozen=True)
class ServingSettings:
    """How a model reads texts and answers: all that is in `serving.json`.

    Attributes:
        agent: criteria or evidence.
        criteria: Text of each criterion by its id.
        max_length: Most tokens in a window.
        stride: Tokens of a post that neighbouring windows share.
        template: The fields of a `PairTemplate`.
        precision: Lightning's name of the precision that the model was scored with. What is bf16-mixed is answered in
            bf16 where the processor computes with it by itself, and in float32 elsewhere, as everything else.
        threshold: Least probability of a criterion that is met.
        decoding: The fields of the evidence agent's `Decoding`.
    """

    agent: str
    criteria: dict[str, str]
    max_length: int
    stride: int
    template: dict[str, Any]
    precision: str = "32-true"
    threshold: float = 0.5
    decoding: dict[str, Any] | None = None

    @property
    def params(self) -> dict[str, float]:
        """What a call may set, and what is taken where it does not."""
        if self.agent == "criteria":
            return {"threshold": self.threshold}
        decoding = Decoding.read(self.decoding)
        return {"null_threshold": decoding.threshold, "top_k": decoding.top_k}

    def answers(self, top_k: int) -> dict[str, str]:
        """What the model answers where it may give so many answers to a pair, and with which of MLflow's types."""
        return _ANSWERS[self.agent] | (_FURTHER_ANSWERS if top_k > 1 else {})


class _Asked(NamedTuple):
    """A row of the input: its criterion, its post, and the token range [first, stop) of the post in each window."""

    criterion: TokenizedText
    post: TokenizedText
    ranges: Sequence[tuple[int, int]]


class TextModel:
    """What `mlflow.pyfunc.load_model` gives: criteria and posts in, answers out."""

    def __init__(self, settings: ServingSettings, network: fx.GraphModule, windows: Windows) -> None:
        self._settings, self._network, self._windows = settings, network, windows
        self._narrow = settings.precision == _BF16 and computes_bf16()
        if self._narrow:
            quicken_attention(network)
            round_weights(network)

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer each row.

        Args:
            data: A column `criterion`, with ids of criteria or their text, and a column `post`.
            params: Criteria: `threshold`, the least probability, 0 to 1, with which a criterion is met. Evidence:
                `null_threshold`, the highest logarithm of how much more probable "no evidence" may be than an answer
                (the lower, the less evidence is found); `top_k`, the most answers to a row. The model's signature
                says what is taken where a call leaves one out: that with which the model was scored.

        Returns:
            A row for each row. Criteria: `met`, `probability`. Evidence: `start` and `end` in characters of the post,
            `text`, `score`, `null`; where there is no evidence, -1, -1 and no text. If several answers are allowed,
            also `answers`: all of them as a list in JSON, the best first, each with `start`, `end`, `text`, `score`.

        Raises:
            InputError: If a row has no criterion or no post, a criterion leaves no room for the post, or a parameter
                is out of its bounds.
            NotFiniteError: If the network gives what is no number.
        """
        chosen = self._settings.params | (params or {})
        raise_problems(self._problems(chosen))
        kinds = self._settings.answers(int(chosen.get("top_k", 1)))
        if not len(data):  # nothing says of which type it is
            return pd.DataFrame({name: pd.Series(dtype=_TYPES[kind]) for name, kind in kinds.items()}, index=data.index)
        criteria, posts = _read(data)
        asked = self._asked([self._settings.criteria.get(criterion, criterion) for criterion in criteria], posts)
        rows: list[dict[str, Any]] = [{} for _ in asked]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._narrow):
            for places in _batches(asked):
                answers = self._answer([asked[place] for place in places], chosen)
                for place, answer in zip(places, answers, strict=True):
                    rows[place] = _with_text(answer, posts[place]) if "null" in answer else answer
        return pd.DataFrame(rows, columns=list(kinds), index=data.index)

    def _problems(self, params: Mapping[str, Any]) -> Iterator[str]:
        known = self._settings.params
        for name, value in params.items():
            if name in known:
                yield from outside(f"parameter {name}", value, *_BOUNDS[name])
            else:
                yield f"parameter {name}: this model has none; there are {', '.join(known)}"

    def _asked(self, criteria: Sequence[str], posts: Sequence[str]) -> list[_Asked]:
        # Each text once: most tables ask about the same post with every criterion.
        texts = list(dict.fromkeys((*criteria, *posts)))
        tokens = dict(zip(texts, self._windows.tokenize(texts), strict=True))
        raise_problems(
            f"input row {row}, column criterion: its {len(tokens[criterion])} tokens leave no room for the post in a "
            f"window of {self._windows.max_length}; use a shorter one"
            for row, criterion in enumerate(criteria)
            if self._windows.room(tokens[criterion]) <= self._windows.stride
        )
        return [
            _Asked(tokens[criterion], tokens[post], self._windows.ranges(len(tokens[post]), tokens[criterion]))
            for criterion, post in zip(criteria, posts, strict=True)
        ]

    def _answer(self, asked: Sequence[_Asked], chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        windows = [self._windows.compose(row.criterion, row.post.part(*part)) for row in asked for part in row.ranges]
        pair_index = torch.tensor([place for place, row in enumerate(asked) for _ in row.ranges])
        logits = self._logits(self._windows.collate(windows))
        if self._settings.agent == "criteria":
            return met_rows(pair_probabilities(logits, pair_index, len(asked)), chosen["threshold"])
        decoding = replace(Decoding.read(self._settings.decoding), top_k=int(chosen["top_k"]))
        spans = decode_pairs(logits, self._windows.offsets(windows), pair_index, len(asked), decoding)
        return answer_rows(spans, chosen["null_threshold"])

    def _logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self._network(*(batch[name] for name in INPUTS if name in batch))
        return logits.float()


def _load_pyfunc(path: str) -> TextModel:
    """Load the data folder of a saved model; MLflow calls this by its name."""
    folder = Path(path)
    settings = ServingSettings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER / "tokenizer.json"))
    template = PairTemplate(**settings.template)
    windows = Windows(tokenizer, template, max_length=settings.max_length, stride=settings.stride)
    root = next(parent for parent in folder.parents if (parent / MLMODEL).is_file())
    return TextModel(settings, mlflow.pytorch.load_model(str(root)), windows)


def _batches(asked: Sequence[_Asked]) -> list[list[int]]:
    longest = [max(stop - first for first, stop in row.ranges) + len(row.criterion) for row in asked]
    counts = [len(row.ranges) for row in asked]
    batches = pair_batches(np.array(longest, np.int64), np.array(counts, np.int64), _WINDOWS_AT_ONCE, _TOKENS_AT_ONCE)
    return [batch.tolist() for batch in batches]


def _with_text(answer: dict[str, Any], post: str) -> dict[str, Any]:
    if "answers" in answer:
        further = [{**span, "text": post[span["start"] : span["end"]]} for span in answer["answers"]]
        answer = {**answer, "answers": json.dumps(further, ensure_ascii=False)}
    if answer["null"]:
        return {**answer, "start": -1, "end": -1, "text": ""}
    return {**answer, "text": post[answer["start"] : answer["end"]]}


def _read(data: pd.DataFrame) -> tuple[list[str], list[str]]:
    missing = [name for name in COLUMNS if name not in data.columns]
    if missing:
        raise InputError(f"input: no column {' and no column '.join(missing)}; a row is a criterion and a post")
    columns = [data[name].tolist() for name in COLUMNS]
    problems = [
        f"input row {row}, column {name}: it is empty or no text"
        for row, values in enumerate(zip(*columns, strict=True))
        for name, value in zip(COLUMNS, values, strict=True)
        if not _is_text(value)
    ]
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise InputError(problems[:_MOST_PROBLEMS] + ([f"and {more} more like these"] if more > 0 else []))
    return columns[0], columns[1]


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a character, which no tokenizer takes
        return False
    return True
