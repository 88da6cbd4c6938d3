"""The registered model as an MLflow pyfunc: criteria and posts in, labels or spans out.

`bundled_code` saves this module and its imports with each model. A server therefore needs neither this package nor
Lightning nor transformers.
"""

import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from mlflow.models import Model
from tokenizers import Tokenizer
from torch import fx

from lightning_hpo.agents.pair_decoding import (
    MetDecision,
    batch_logits,
    met_and_span_logits,
    met_rows,
    pair_log_odds,
)
from lightning_hpo.agents.spans.decoding import Decoding, answer_rows, decode_pairs, with_whole_graphemes
from lightning_hpo.data.batching import pair_batches
from lightning_hpo.data.one_pass_windows import Form, make_windows
from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.windows import Part, Windows
from lightning_hpo.exceptions import InputError, LightningHpoError, raise_problems
from lightning_hpo.flag_types import Bounds
from lightning_hpo.hardware.bf16 import allow_bf16, computes_bf16, round_weights
from lightning_hpo.serving.checksums import DIGEST, MLMODEL, changed_data
from lightning_hpo.serving.prediction_device import move_network, prediction_device

__all__ = ["COLUMNS", "DEVICE", "SETTINGS", "TOKENIZER", "ServingSettings", "TextModel", "load_network"]

COLUMNS = ("criterion", "post")
DEVICE = "device"
SETTINGS = "serving.json"
TOKENIZER = "tokenizer"

# Larger batches do not fit in the processor's caches, and take longer per window.
_MAX_WINDOWS = 32
_MAX_TOKENS = 2048
# Criteria of a post in a batch. Spans take far more memory: they are searched in each window for each criterion.
_MAX_CRITERIA = 64
_MAX_CRITERIA_WITH_SPANS = 16
# Letters of an id that is compared letter by letter.
_LONG_NAME = 4
# Output columns of each agent, with MLflow's types.
_MET = {"met": "boolean", "probability": "double", "threshold": "double"}
_SPANS = {"start": "long", "end": "long", "text": "string", "score": "double", "null": "boolean"}
_OUTPUTS = {"criteria": _MET, "evidence": _SPANS, "joint": _MET | _SPANS}
# Additional column for top_k > 1. It holds JSON, since tables of MLflow's scoring server hold no lists.
_TOP_K_OUTPUTS = {"answers": "string"}
# Columns with remarks: whether the criterion is new to the model, and why a row has no answer.
_REMARKS = {"free_text": "boolean", "problem": "string"}
# pandas' name of each MLflow type.
_TYPES = {"boolean": "bool", "double": "float64", "long": "int64", "string": "object"}
# Lowest and highest value of each parameter of `predict`.
_BOUNDS = {"threshold": Bounds(0, 1), "null_threshold": Bounds(-1e38, 1e38), "top_k": Bounds(1, 1000)}


@dataclass(frozen=True)
class ServingSettings:
    """Content of `serving.json`: how a model tokenizes texts and decodes logits.

    Attributes:
        agent: criteria, evidence or joint.
        criteria: Text of each criterion by its id.
        form: pairs or one_pass, as `make_windows` explains.
        max_length: Maximum number of tokens in a window.
        stride: Number of tokens that neighbouring windows of a post share.
        template: The fields of a `PairTemplate`.
        precision: Lightning's name of the precision in validation. With bf16-mixed the model computes in bf16 if the
            processor supports it natively. In all other cases it computes in float32.
        threshold: Lowest probability at which a criterion is met.
        temperature: Divisor of the log odds, before they become a probability.
        thresholds: Threshold of each criterion that has its own.
        decoding: The fields of a `Decoding`, of an agent that finds spans.
    """

    agent: str
    criteria: dict[str, str]
    max_length: int
    stride: int
    template: dict[str, Any]
    form: Form = "pairs"
    precision: str = "32-true"
    threshold: float = 0.5
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    decoding: dict[str, Any] | None = None

    @property
    def decides(self) -> bool:
        """Whether the answers say if a criterion is met."""
        return self.agent != "evidence"

    @property
    def finds_spans(self) -> bool:
        """Whether the answers have spans."""
        return self.agent != "criteria"

    @property
    def params(self) -> dict[str, float]:
        """Default of each parameter of `predict`."""
        decoding = Decoding.read(self.decoding)
        return {
            **({"threshold": self.threshold} if self.decides else {}),
            **({"null_threshold": decoding.threshold, "top_k": decoding.top_k} if self.finds_spans else {}),
        }

    def decision(self, threshold: float) -> MetDecision:
        """Return how it is decided whether a criterion is met, given the parameter `threshold`.

        A value other than the default replaces the thresholds of all criteria.
        """
        own = self.thresholds if threshold == self.threshold else {}
        return MetDecision(self.temperature, threshold, own)

    def outputs(self, top_k: int) -> dict[str, str]:
        """Return the output columns for at most `top_k` spans a row, with MLflow's types."""
        return _OUTPUTS[self.agent] | (_TOP_K_OUTPUTS if top_k > 1 else {}) | _REMARKS


class _Row(NamedTuple):
    """A tokenized row of the input, with the token range [first, stop) of the post in each window.

    `name` is the id of the criterion; empty if the model does not have it. `texts` are those of criterion and post.
    """

    name: str
    texts: tuple[str, str]
    criterion: TokenizedText
    post: TokenizedText
    ranges: Sequence[tuple[int, int]]


class TextModel:
    """Model that `mlflow.pyfunc.load_model` returns: criteria and posts in, labels or spans out.

    Args:
        settings: Content of the model's `serving.json`.
        network: The exported network.
        windows: Tokenizes texts and cuts posts into windows.
    """

    def __init__(self, settings: ServingSettings, network: fx.GraphModule, windows: Windows) -> None:
        self._settings, self._network, self._windows = settings, network, windows
        self._is_16_bit = settings.precision == "bf16-mixed"
        if self._is_16_bit:
            allow_bf16(network)
            if computes_bf16():
                round_weights(network)
        self._moved: dict[torch.device, fx.GraphModule] = {}
        self._moving = threading.Lock()

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict the labels or spans of each row.

        Args:
            data: Column `criterion`, with the ids or texts of criteria, and column `post`.
            params: Criteria: `threshold`, the lowest probability (0 to 1) at which a criterion is met; a value other
                than the default also replaces the thresholds of criteria that have their own. Evidence:
                `null_threshold`, the highest log odds of "no evidence" against a span at which the span is returned;
                `top_k`, the maximum number of spans for a row. Joint: all of them. The model's signature holds the
                defaults. Every agent: `device`, such as cuda; by default that of the environment variable
                MLFLOW_DEFAULT_PREDICTION_DEVICE, or the CPU.

        Returns:
            One row for each row of `data`. Criteria: `met`, `probability`, `threshold`. Evidence: `start` and `end` in
            characters of the post, `text`, `score`, `null`; without evidence: -1, -1 and an empty text. With `top_k` >
            1 also `answers`: JSON list of all spans, the best first, each with `start`, `end`, `text`, `score`. Joint:
            all of them. Every agent: `free_text`, whether the criterion is not in the model; and `problem`, why the row
            has no answer (for example, its post is empty), or an empty text. Other columns of a row with a problem are
            None.

        Raises:
            InputError: If a column is missing, a criterion is a misspelt id of the model, a parameter is unknown or out
                of bounds, or the machine does not have the device.
            NotFiniteError: If a logit is NaN or infinite.
        """
        chosen: dict[str, Any] = {**self._settings.params, **(params or {})}
        device = chosen.pop(DEVICE, "")
        raise_problems(self._problems(chosen))
        place = prediction_device(device, f"parameter {DEVICE}") if device else prediction_device()
        kinds = self._settings.outputs(int(chosen.get("top_k", 1)))
        if not len(data):  # pandas cannot infer the types of empty columns
            return pd.DataFrame({name: pd.Series(dtype=_TYPES[kind]) for name, kind in kinds.items()}, index=data.index)
        answers = self._predict(*_read(data), chosen, list(kinds), place)
        # pandas would turn None into NaN, and the other integers of the column into floats.
        dtype = object if any(answer["problem"] for answer in answers) else None
        return pd.DataFrame(answers, columns=list(kinds), index=data.index, dtype=dtype)

    def _predict(
        self,
        criteria: Sequence[Any],
        posts: Sequence[Any],
        chosen: Mapping[str, Any],
        columns: Sequence[str],
        device: torch.device,
    ) -> list[dict[str, Any]]:
        problems = [_problem_of(row) for row in zip(criteria, posts, strict=True)]
        raise_problems(self._misspelt(criteria, problems))
        own = self._settings.criteria
        texts = [
            criterion if problem else own.get(criterion, criterion)
            for criterion, problem in zip(criteria, problems, strict=True)
        ]
        rows = self._tokenize(texts, posts, problems)
        places = [place for place, problem in enumerate(problems) if not problem]
        answers: list[dict[str, Any]] = [dict.fromkeys(columns) for _ in problems]
        network = self._on(device)
        # Weights that were rounded for the CPU need bf16 on each device.
        has_bf16 = computes_bf16() or (device.type == "cuda" and torch.cuda.is_bf16_supported(False))
        in_bf16 = self._is_16_bit and has_bf16
        most_criteria = _MAX_CRITERIA_WITH_SPANS if self._settings.finds_spans else _MAX_CRITERIA
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            for batch in _batches([rows[place] for place in places], self._windows, most_criteria):
                chosen_places = [places[number] for number in batch]
                found = self._predict_batch([rows[place] for place in chosen_places], chosen, network, device)
                for place, answer in zip(chosen_places, found, strict=True):
                    answers[place] |= _with_text(answer, posts[place]) if "null" in answer else answer
                    answers[place]["free_text"] = not rows[place].name
        return [{**answer, "problem": problem} for answer, problem in zip(answers, problems, strict=True)]

    def _misspelt(self, criteria: Sequence[Any], problems: Sequence[str]) -> Iterator[str]:
        """Yield a line for each criterion that differs from an id of the model by case, blanks or one letter."""
        own = self._settings.criteria
        known, rows = {*own, *own.values()}, dict[str, int]()
        for row, (criterion, problem) in enumerate(zip(criteria, problems, strict=True)):
            if not problem and criterion not in known:
                rows.setdefault(criterion, row)
        for criterion, row in rows.items():
            meant = _nearest(criterion, list(own))
            if meant is not None:
                yield (
                    f"input row {row}, column criterion: got {criterion!r}, which is no criterion of this model; did "
                    f"you mean {meant}?"
                )

    def _problems(self, params: Mapping[str, Any]) -> Iterator[str]:
        known = self._settings.params
        for name, value in params.items():
            if name not in known:
                yield f"parameter {name}: no such parameter of this model; use {', '.join([*known, DEVICE])}"
            elif value not in _BOUNDS[name]:
                yield f"parameter {name}: got {value}; it must be {_BOUNDS[name]}"

    def _tokenize(self, criteria: Sequence[Any], posts: Sequence[Any], problems: list[str]) -> dict[int, _Row]:
        """Return the rows without a problem by their place. A criterion that is too long is one more problem."""
        usable = [place for place, problem in enumerate(problems) if not problem]
        # Each text once: most tables hold every post with every criterion.
        texts = list(dict.fromkeys(column[place] for column in (criteria, posts) for place in usable))
        names = {text: name for name, text in self._settings.criteria.items()}
        tokens = dict(zip(texts, self._windows.tokenize(texts), strict=True))
        rows = {}
        for place in usable:
            criterion, post = tokens[criteria[place]], tokens[posts[place]]
            if not self._windows.fits(criterion):
                problems[place] = (
                    f"criterion: got {len(criterion)} tokens, too many for windows of {self._windows.max_length}; use "
                    "a shorter criterion"
                )
            else:
                ranges = self._windows.ranges(len(post), criterion)
                pair = (criteria[place], posts[place])
                rows[place] = _Row(names.get(pair[0], ""), pair, criterion, post, ranges)
        return rows

    def _on(self, device: torch.device) -> fx.GraphModule:
        """Return the network on a device. A server may ask from several threads."""
        if device.type == "cpu":
            return self._network
        with self._moving:
            if device not in self._moved:
                self._moved[device] = deepcopy(self._network)
                move_network(self._moved[device], device)
            return self._moved[device]

    def _predict_batch(
        self, rows: Sequence[_Row], chosen: Mapping[str, Any], network: fx.GraphModule, device: torch.device
    ) -> list[dict[str, Any]]:
        parts = [
            Part((row.texts[1], *part), row.post.part(*part), row.texts[0], row.criterion)
            for row in rows
            for part in row.ranges
        ]
        pair_index = torch.tensor([place for place, row in enumerate(rows) for _ in row.ranges])
        inputs = self._windows.inputs(parts, offsets=self._settings.finds_spans)
        windows, tokens = inputs.tensors["input_ids"].shape
        # Only a batch of a single pair or post can be too large.
        several = len({row.texts[1] for row in rows} if self._windows.shares_posts else rows) > 1
        at_once = windows if several else max(1, min(_MAX_WINDOWS, _MAX_TOKENS // tokens))
        tensors = {name: tensor.to(device) for name, tensor in inputs.tensors.items()}
        logits = batch_logits(network, tensors, at_once).cpu()
        met, spans = met_and_span_logits(logits) if self._settings.agent == "joint" else (logits, logits)
        found: list[dict[str, Any]] = [{} for _ in rows]
        if self._settings.decides:
            log_odds = pair_log_odds(met, pair_index, len(rows))
            decision = self._settings.decision(chosen["threshold"])
            found = met_rows(log_odds, [row.name for row in rows], decision)
        if inputs.offsets is None:
            return found
        decoding = replace(Decoding.read(self._settings.decoding), top_k=int(chosen["top_k"]))
        texts = [row.texts[1] for row in rows]
        best = decode_pairs(spans, inputs.offsets, pair_index, len(rows), decoding, texts)
        answers = answer_rows(best, chosen["null_threshold"])
        return [{**decided, **answer} for decided, answer in zip(found, answers, strict=True)]


def _load_pyfunc(path: str) -> TextModel:
    """Load a model from its data folder. MLflow calls this function by name."""
    folder = Path(path)
    settings = ServingSettings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER / "tokenizer.json"))
    template = PairTemplate(**settings.template)
    windows = make_windows(settings.form, tokenizer, template, max_length=settings.max_length, stride=settings.stride)
    root = next(parent for parent in folder.parents if (parent / MLMODEL).is_file())
    return TextModel(settings, load_network(root), windows)


def load_network(folder: Path) -> fx.GraphModule:
    """Load the network of a saved model.

    A pickle, which could run any code, is refused whatever MLflow's setting. So is a changed file, before torch reads
    it: torch evaluates the expressions of a program. Who can write `MLmodel`, too, can still name other digests.

    Raises:
        LightningHpoError: A file is not as it was logged.
        MlflowException: The model is a pickle.
    """
    changed = changed_data(folder, (Model.load(str(folder)).metadata or {}).get(DIGEST, {}))
    if changed is not None:
        raise LightningHpoError(f"{changed} is not as it was logged: its {DIGEST} differs, or there was no such file")
    flag = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
    before = os.environ.get(flag)
    os.environ[flag] = "false"
    try:
        network: fx.GraphModule = mlflow.pytorch.load_model(str(folder))
        return network
    finally:
        del os.environ[flag]
        if before is not None:
            os.environ[flag] = before


def _batches(rows: Sequence[_Row], windows: Windows, most_criteria: int) -> list[list[int]]:
    """Return the places of the rows in each batch, with rows of similar length together.

    Rows that share the windows of their post are in one batch, up to a number of criteria.
    """
    units: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        units.setdefault(row.texts[1] if windows.shares_posts else place, []).append(place)
    parts = [
        own[first : first + most_criteria] for own in units.values() for first in range(0, len(own), most_criteria)
    ]
    firsts = [rows[part[0]] for part in parts]
    longest = [
        row.ranges[0][1] - row.ranges[0][0] + (0 if windows.shares_posts else len(row.criterion)) for row in firsts
    ]
    counts = [len(row.ranges) for row in firsts]
    batches = pair_batches(np.array(longest, np.int64), np.array(counts, np.int64), _MAX_WINDOWS, _MAX_TOKENS)
    return [[place for unit in batch for place in parts[unit]] for batch in batches]


def _with_text(prediction: dict[str, Any], post: str) -> dict[str, Any]:
    """Extend each span of a post to whole graphemes, and add its text."""
    prediction = with_whole_graphemes(prediction, post)
    if "answers" in prediction:
        spans = [{**span, "text": post[span["start"] : span["end"]]} for span in prediction["answers"]]
        prediction["answers"] = json.dumps(spans, ensure_ascii=False)
    if prediction["null"]:
        return {**prediction, "start": -1, "end": -1, "text": ""}
    return {**prediction, "text": post[prediction["start"] : prediction["end"]]}


def _read(data: pd.DataFrame) -> tuple[list[Any], list[Any]]:
    """Return the criteria and the posts of a table."""
    missing = [name for name in COLUMNS if name not in data.columns]
    if missing:
        raise InputError(f"input: no column {' and no column '.join(missing)}; use the columns criterion and post")
    criteria, posts = (data[name].tolist() for name in COLUMNS)
    return criteria, posts


def _problem_of(row: tuple[Any, ...]) -> str:
    """Return the problem of a row, or an empty string."""
    unusable = [name for name, value in zip(COLUMNS, row, strict=True) if not _is_text(value)]
    return f"{' and '.join(unusable)}: empty or not a text" if unusable else ""


def _nearest(given: str, names: Sequence[str]) -> str | None:
    """Return the name that differs from a text by case, blanks, underscores and hyphens, or else by one letter."""
    keys = {name: _key(name) for name in names}
    wanted = _key(given)
    same = [name for name, key in keys.items() if key == wanted]
    # Every short text is one letter away from a short name.
    close = [name for name, key in keys.items() if len(key) >= _LONG_NAME and _is_one_letter_off(wanted, key)]
    return next(iter(same + close), None)


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _is_one_letter_off(given: str, name: str) -> bool:
    """Return whether a text has one letter too many, too few or another one, or two in the wrong order."""
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(given, name, strict=False))))
    given, name = given[same:], name[same:]
    return name in (given[1:], given[1::-1] + given[2:]) or given == name[1:] or given[1:] == name[1:]


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # an unpaired surrogate, which tokenizers reject
        return False
    return True
