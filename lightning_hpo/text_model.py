"""The registered model as MLflow's pyfunc: criteria and posts in, labels or spans out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from lightning_hpo.agents.criteria import pair_probabilities
from lightning_hpo.agents.decoding import Decoding
from lightning_hpo.agents.span_decoding import answer_rows, decode_pairs
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.scored_pair import ScoredPair
from lightning_hpo.data.scored_pairs import ScoredPairs
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.windows import Windows
from lightning_hpo.exceptions import InputError

__all__ = ["COLUMNS", "INPUTS", "ServingSettings", "TextModel"]

COLUMNS = ("criterion", "post")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

_WINDOWS_AT_ONCE = 32
# What each agent answers, and with which of MLflow's types.
_ANSWERS = {
    "criteria": {"met": "boolean", "probability": "double"},
    "evidence": {"start": "long", "end": "long", "text": "string", "score": "double", "null": "boolean"},
}
# What an agent that may give several answers adds: JSON, since a table of MLflow's scoring server holds no lists.
_FURTHER_ANSWERS = {"answers": "string"}


@dataclass(frozen=True)
class ServingSettings:
    """How a model reads texts and answers: all that is in `serving.json`."""

    agent: str
    criteria: dict[str, str]
    max_length: int
    stride: int
    decoding: dict[str, Any] | None = None

    @property
    def answers(self) -> dict[str, str]:
        """What the model answers, and with which of MLflow's types."""
        several = Decoding.read(self.decoding).top_k > 1
        return _ANSWERS[self.agent] | (_FURTHER_ANSWERS if several else {})


class TextModel:
    """What `mlflow.pyfunc.load_model` gives: criteria and posts in, answers out."""

    def __init__(self, settings: ServingSettings, network: nn.Module, windows: Windows, tokenizer: Any) -> None:
        self._settings, self._network, self._windows, self._tokenizer = settings, network, windows, tokenizer

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Answer each row.

        Args:
            data: A column `criterion`, with ids of criteria or their text, and a column `post`.
            params: For MLflow alone.

        Returns:
            A row for each row. Criteria: `met`, `probability`. Evidence: `start` and `end` in characters of the post,
            `text`, `score`, `null`; where there is no evidence, -1, -1 and no text. If several answers are allowed,
            also `answers`: all of them as a list in JSON, the best first, each with `start`, `end`, `text`, `score`.

        Raises:
            InputError: If a row has no criterion or no post.
            NotFiniteError: If the network gives what is no number.
        """
        criteria, posts = _read(data)
        criteria = [self._settings.criteria.get(criterion, criterion) for criterion in criteria]
        rows: list[dict[str, Any]] = [{} for _ in posts]
        for batch in self._batches(criteria, posts) if rows else ():
            for row, answer in zip(map(int, batch["post_ids"]), self._answer(batch), strict=True):
                rows[row] = _with_text(answer, posts[row]) if "null" in answer else answer
        return pd.DataFrame(rows, columns=list(self._settings.answers), index=data.index)

    def _batches(self, criteria: list[str], posts: list[str]) -> Iterator[dict[str, Any]]:
        names = list(dict.fromkeys(criteria))
        read = dict(zip(names, self._windows.tokenize(names), strict=True))
        self._windows.refuse_criteria(read.values())
        tokens = TokenizedPosts({str(row): post for row, post in enumerate(posts)}, self._tokenizer)
        pairs = [
            ScoredPair(
                Pair(str(row), criterion, met=False),
                tuple(self._windows.ranges(len(tokens[str(row)]), read[criterion])),
            )
            for row, criterion in enumerate(criteria)
        ]
        scored = ScoredPairs(
            pairs, posts=tokens, criteria=read, windows=self._windows, batch_size=_WINDOWS_AT_ONCE, offsets=True
        )
        return (scored[index] for index in range(len(scored)))

    def _answer(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        inputs = [batch[name] for name in INPUTS if name in batch]
        with torch.no_grad():
            logits = self._network(*inputs).float()
        pairs = len(batch["post_ids"])
        if self._settings.agent == "criteria":
            probabilities = pair_probabilities(logits, batch["pair_index"], pairs).tolist()
            return [{"met": probability >= 0.5, "probability": probability} for probability in probabilities]
        decoding = Decoding.read(self._settings.decoding)
        spans = decode_pairs(logits, batch["offsets"], batch["pair_index"], pairs, decoding)
        return answer_rows(spans, decoding.threshold)


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
        if not isinstance(value, str) or not value.strip()
    ]
    if problems:
        raise InputError(problems)
    return columns[0], columns[1]
