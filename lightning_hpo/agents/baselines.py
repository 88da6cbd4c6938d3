"""Simple baselines that a fine-tuned model should beat: they are computed in seconds, from the words of the posts.

They are fitted to the training split only, with their thresholds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_hpo.agents.calibration import best_met_threshold, best_null_threshold
from lightning_hpo.agents.post_scores import PostScores, text_keys
from lightning_hpo.agents.spans.metrics import Span, span_f1
from lightning_hpo.data.pairs import Pair, PairTable
from lightning_hpo.data.sentences import sentence_ranges

__all__ = [
    "BaselineData",
    "baselines_of",
    "linear_words",
    "met_baselines",
    "pairs_of_baselines",
    "similar_sentence",
    "span_baselines",
]

_MOST_POSTS = 10_000
"""Training posts that a baseline reads at most: more would take minutes and change little."""
_FOLDS = 5


@dataclass(frozen=True)
class BaselineData:
    """What a baseline knows.

    Args:
        train: Pairs of the training split.
        scored: Pairs of the split to be scored.
        posts: Text of each post by its id.
        criteria: Text of each criterion by its id.
    """

    train: PairTable
    scored: PairTable
    posts: Mapping[str, str]
    criteria: Mapping[str, str]


def baselines_of(module: Any, datamodule: Any, split: Literal["val", "test"]) -> Mapping[str, PostScores | float]:
    """Return the baselines of any module by their names; none if it has no method `baselines`."""
    method = getattr(module, "baselines", None)
    return {} if method is None else method(datamodule, split)


def met_baselines(data: BaselineData) -> Mapping[str, PostScores]:
    """Return constant answers to "met or not", and a linear model of the words."""
    keys, met = text_keys([pair.post_id for pair in data.scored]), data.scored.met
    return {
        "always met": PostScores.of_labels(keys, np.ones_like(met), met),
        "never met": PostScores.of_labels(keys, np.zeros_like(met), met),
        "TF-IDF + logistic regression": linear_words(data),
    }


def span_baselines(data: BaselineData) -> Mapping[str, PostScores]:
    """Return constant spans, and the sentence with the words of the criterion."""
    keys, gold = text_keys([pair.post_id for pair in data.scored]), [pair.spans for pair in data.scored]
    answers: dict[str, list[Span | None]] = {
        "whole post": [(0, len(data.posts[pair.post_id])) for pair in data.scored],
        "no evidence": [None for _ in gold],
    }
    constant = {name: PostScores.of_means(keys, list(map(span_f1, given, gold))) for name, given in answers.items()}
    return {**constant, "most similar sentence": similar_sentence(data)}


def pairs_of_baselines(data: BaselineData) -> Mapping[str, PostScores]:
    """Return baselines that answer both: the spans are scored on pairs whose evidence was found in the post."""
    known = replace(data, train=data.train.take(~data.train.lost), scored=data.scored.take(~data.scored.lost))
    both = zip(met_baselines(data).items(), span_baselines(known).items(), strict=True)
    return {f"{met}, {span}": PostScores.joint(met_scores, spans) for (met, met_scores), (span, spans) in both}


def linear_words(data: BaselineData) -> PostScores:
    """Score a logistic regression for each criterion over the TF-IDF weights of words.

    One threshold for all criteria is fitted to cross-validated log odds of the training split.
    """
    train, rows = _labels(data.train, _MOST_POSTS)
    vectorizer = _vectorizer([data.posts[post] for post in rows], min_df=2)
    weights = vectorizer.transform(data.posts[post] for post in rows)
    held_out = np.stack([_cross_validated(weights, train[:, column]) for column in range(train.shape[1])], 1)
    counted = ~np.isnan(train)
    threshold = best_met_threshold(torch.tensor(held_out[counted]), torch.tensor(train[counted] == 1))
    labels, scored = _labels(data.scored)
    found = vectorizer.transform(data.posts[post] for post in scored)
    odds = np.stack([_log_odds(weights, train[:, column], found) for column in range(train.shape[1])], 1)
    counted = ~np.isnan(labels)
    keys = np.broadcast_to(np.array(text_keys(scored))[:, None], labels.shape)[counted]
    return PostScores.of_labels(keys, odds[counted] >= threshold, labels[counted] == 1)


def similar_sentence(data: BaselineData) -> PostScores:
    """Score the sentence of a post whose TF-IDF weights are most similar to those of the criterion's text.

    The similarity below which the answer is "no evidence" is fitted to the training split.
    """
    train = list(_some_posts(data.train, _MOST_POSTS // 10))
    posts = {pair.post_id: data.posts[pair.post_id] for pair in train}
    sentences = [text[start:end] for text in posts.values() for start, end in sentence_ranges(text)]
    vectorizer = _vectorizer([*sentences, *data.criteria.values()], stop_words="english")
    found = _most_similar(vectorizer, train, data)
    f1 = torch.tensor([span_f1(span, pair.spans) for pair, (span, _) in zip(train, found, strict=True)])
    null = torch.tensor([float(not pair.spans) for pair in train])
    threshold = best_null_threshold(torch.tensor([-similarity for _, similarity in found]), f1, null)
    scored = list(data.scored)
    answers = [
        span if -similarity <= threshold else None for span, similarity in _most_similar(vectorizer, scored, data)
    ]
    scores = [span_f1(answer, pair.spans) for pair, answer in zip(scored, answers, strict=True)]
    return PostScores.of_means(text_keys([pair.post_id for pair in scored]), scores)


def _vectorizer(texts: Sequence[str], **settings: Any) -> Any:
    """Return the TF-IDF weights of words in texts, or of letters if no word is left."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(sublinear_tf=True, **settings).fit(texts)
    except ValueError:
        return TfidfVectorizer(sublinear_tf=True, analyzer="char").fit(texts)


def _some_posts(pairs: PairTable, most: int) -> PairTable:
    """Return the pairs of some posts, drawn by their keys."""
    rows = np.unique(pairs.rows)
    if len(rows) <= most:
        return pairs
    order = np.argsort(text_keys([pairs.ids[row] for row in rows]))
    return pairs.take(np.isin(pairs.rows, rows[order[:most]]))


def _labels(pairs: PairTable, most: int | None = None) -> tuple[NDArray[np.float64], list[str]]:
    """Return labels [posts, criteria], NaN for a pair that is not in the table, and the ids of the posts."""
    pairs = pairs if most is None else _some_posts(pairs, most)
    rows, places = np.unique(pairs.rows, return_inverse=True)
    labels = np.full((len(rows), len(pairs.criteria)), np.nan)
    labels[places, pairs.columns] = pairs.met
    return labels, [pairs.ids[row] for row in rows]


def _log_odds(weights: Any, labels: NDArray[np.float64], found: Any) -> NDArray[np.float64]:
    """Return the log odds of rows, of a regression that is fitted to the labelled ones of others."""
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(labels)
    if len(np.unique(labels[known])) < 2:
        always = bool(known.any() and labels[known].all())
        return np.full(found.shape[0], 20.0 if always else -20.0)
    # Balanced: a criterion that few posts meet needs log odds that can be compared with those of the others.
    model = LogisticRegression(class_weight="balanced", solver="liblinear", random_state=0, max_iter=1000)
    model.fit(weights[np.flatnonzero(known)], labels[known])
    result: NDArray[np.float64] = model.decision_function(found)
    return result


def _cross_validated(weights: Any, labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log odds of each row, of a regression that has not seen it."""
    folds = np.arange(len(labels)) % _FOLDS
    odds = np.empty(len(labels))
    for fold in range(min(_FOLDS, len(labels))):
        own = folds == fold
        odds[own] = _log_odds(weights[np.flatnonzero(~own)], labels[~own], weights[np.flatnonzero(own)])
    return odds


def _most_similar(vectorizer: Any, pairs: Sequence[Pair], data: BaselineData) -> list[tuple[Span, float]]:
    """Return the best sentence of each pair, and its cosine similarity to the criterion; the post if it has none."""
    names = list(data.criteria)
    queries = vectorizer.transform(data.criteria.values()).T.tocsr()
    found: dict[str, tuple[list[Span], NDArray[np.float64]]] = {}
    for post_id in dict.fromkeys(pair.post_id for pair in pairs):
        text = data.posts[post_id]
        ranges = sentence_ranges(text) or [(0, len(text))]
        similarity = vectorizer.transform(text[start:end] for start, end in ranges) @ queries
        found[post_id] = ranges, similarity.toarray()
    answers = []
    for pair in pairs:
        ranges, similarity = found[pair.post_id]
        column = similarity[:, names.index(pair.criterion)]
        answers.append((ranges[int(column.argmax())], float(column.max())))
    return answers
