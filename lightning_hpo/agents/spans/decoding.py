"""Span decoding: from the start and end logits of windows to the answers of a pair."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from lightning_hpo.agents.settings import Settings, outside
from lightning_hpo.agents.spans.n_best import best_of_pairs, best_spans
from lightning_hpo.exceptions import NotFiniteError

__all__ = ["Decoding", "NullPolicy", "PairSpans", "Rank", "answer_rows", "decode_pairs"]

NullPolicy = Literal["none", "threshold", "ratio", "calibrated"]
Rank = Literal["sum", "product", "softmax"]

_NEVER = 1e38  # finite, also in float32
_NOTHING = float("-inf")
_LOWEST_SCORE = -1e6  # what a pair scores that has no legal span at all: a number that JSON can hold


@dataclass(frozen=True)
class Decoding(Settings):
    """How answers are read from the logits.

    A span's score is the natural logarithm of how much more probable it is than "no evidence"; `rank` says what is
    probable. An answer whose score a null policy does not let pass is none, and a pair without any answer has
    "no evidence".

    Args:
        max_answer_tokens: Longest evidence span, in tokens.
        null_threshold: "No evidence" must beat the best span by more than this, in logits, for the policy threshold;
            the higher, the more evidence is found. The policy calibrated starts with it.
        null_policy: When there is no evidence: none (never), threshold (the score is below -null_threshold), ratio (the
            share is below null_ratio), or calibrated (as threshold, with what gives the highest val_metric on the
            validation part after each epoch; one number fitted to the pairs that it is scored on, so its val_metric
            flatters a little and the test part tells the truth).
        null_ratio: Least share p(span) / (p(span) + p(no evidence)) of an answer for the policy ratio, between 0 and 1.
        top_k: Most answers to a pair, the best first; each must pass the null policy.
        overlap: An answer is dropped if it shares more than this part of its characters with a better one
            (intersection over union, 0 to 1); acts where top_k is above 1.
        n_best: Spans of a pair, from all of its windows, among which the answers are sought, top_k at the least. Acts
            where top_k is above 1 or rank is softmax.
        rank: What makes a span probable: sum (start and end logits, as in SQuAD's evaluation), product (of the start's
            and the end's probability within their window), or softmax (of the sums over the n_best; the probabilities
            of a span that several windows show are added). They differ where a post has several windows.
    """

    FLAG: ClassVar[str] = "--model.decoding"

    max_answer_tokens: int = 200
    null_threshold: float = 0.0
    null_policy: NullPolicy = "threshold"
    null_ratio: float = 0.5
    top_k: int = 1
    overlap: float = 0.5
    n_best: int = 20
    rank: Rank = "sum"

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = outside(f"{self.FLAG}.max_answer_tokens", self.max_answer_tokens, 1, 1_000_000)
        found += outside(f"{self.FLAG}.null_threshold", self.null_threshold, -1e6, 1e6)
        found += outside(f"{self.FLAG}.null_ratio", self.null_ratio, 0.001, 0.999)
        found += outside(f"{self.FLAG}.top_k", self.top_k, 1, 1000)
        found += outside(f"{self.FLAG}.overlap", self.overlap, 0, 1)
        found += outside(f"{self.FLAG}.n_best", self.n_best, 1, 1000)
        for name, value, known in (("null_policy", self.null_policy, NullPolicy), ("rank", self.rank, Rank)):
            if value not in get_args(known):
                found.append(f"{self.FLAG}.{name}: got {value!r}; there are {', '.join(get_args(known))}")
        return found

    @property
    def threshold(self) -> float:
        """The highest log odds of "no evidence" against a span at which the span is an answer still.

        Every policy comes down to it: a share of r is log odds of log((1 - r) / r), and "never" is a number that only
        the infinite odds of a span that does not exist are above.
        """
        if self.null_policy == "none":
            return _NEVER
        if self.null_policy == "ratio":
            return math.log((1 - self.null_ratio) / self.null_ratio)
        return self.null_threshold

    @property
    def candidates(self) -> int:
        """How many spans of a pair have to be known, so that its answers are."""
        return max(self.n_best, self.top_k) if self.top_k > 1 or self.rank == "softmax" else 1


class PairSpans(NamedTuple):
    """The K best spans of P pairs, the best first; which of them are answers, the null policy's threshold says.

    Attributes:
        start: [P, K] first character of each span; -1 where a pair has no span at all.
        end: [P, K] the character after its last.
        score: [P, K] natural logarithm of how much more probable it is than "no evidence"; minus infinity where there
            is no further span, NaN where the logits of a pair are not finite.
        whole: [P, K] true where it is all of its window's part of the post, or starts like it and is as long as a
            span may be.
    """

    start: Tensor
    end: Tensor
    score: Tensor
    whole: Tensor


def decode_pairs(logits: Tensor, offsets: Tensor, pair_index: Tensor, pairs: int, decoding: Decoding) -> PairSpans:
    """Find the best spans of each pair in all of its windows, as SQuAD 2.0's evaluation does.

    "No evidence" is as probable as its least probable window says: the lowest over the windows of start + end at the
    first token.

    Args:
        logits: [W, T, 2] start and end logits.
        offsets: [W, T, 2] characters of each token in its post; -1 where a token is not of the post.
        pair_index: [W] the pair of each window.
        pairs: How many pairs there are, P.
        decoding: The settings.
    """
    allowed = offsets[..., 0] >= 0
    starts, ends, finite = _sides(logits.float(), allowed, decoding)
    first, last, score = best_spans(starts, ends, allowed, decoding.max_answer_tokens, decoding.candidates)
    place = best_of_pairs(score, pair_index, pairs, decoding.candidates)
    window = torch.arange(len(score), device=score.device).unsqueeze(-1)
    null = _lowest(starts[:, 0] + ends[:, 0], pair_index, pairs)
    found = PairSpans(
        start=_taken(offsets[window, first, 0], place, -1),
        end=_taken(offsets[window, last, 1], place, -1),
        score=_taken(score, place, _NOTHING) - null.unsqueeze(1),
        whole=_taken(_whole(first, last, allowed, decoding.max_answer_tokens), place, False),
    )
    if decoding.rank == "softmax":
        found = _with_shares_added(found)
    if decoding.top_k > 1:
        found = _without_overlaps(found, decoding.overlap)
    legible = _lowest(finite.float(), pair_index, pairs).bool()
    start, end, score, whole = (column[:, : decoding.top_k] for column in found)
    return PairSpans(start, end, score.masked_fill(~legible.unsqueeze(1), float("nan")), whole)


def answer_rows(spans: PairSpans, threshold: float) -> list[dict[str, Any]]:
    """Give the answer to each pair in plain values.

    Args:
        spans: The best spans.
        threshold: The null policy's.

    Returns:
        A row for each pair: `start`, `end`, `score` of its best span, and `null` where that is no answer; if several
        answers are allowed also `answers`, a list of all that there are, each with `start`, `end`, `score`.

    Raises:
        NotFiniteError: If logits of a pair are not finite.
    """
    if bool(spans.score.isnan().any()):
        raise NotFiniteError("the logits are not finite, so there is no answer; train with a lower --model.optim.lr")
    kept = (-spans.score <= threshold).sum(dim=1).tolist()
    columns = (spans.start.tolist(), spans.end.tolist(), spans.score.clamp(min=_LOWEST_SCORE).tolist())
    rows = []
    for count, *row in zip(kept, *columns, strict=True):
        found = [dict(zip(("start", "end", "score"), span, strict=True)) for span in zip(*row, strict=True)]
        several = {"answers": found[:count]} if len(found) > 1 else {}
        rows.append({**found[0], "null": count == 0, **several})
    return rows


def _sides(logits: Tensor, allowed: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor, Tensor]:
    """Give what starts and ends [W, T] score, and which windows [W] are finite; the others are filled with zeros."""
    # The tokens that an answer can be made of: those of the post, and the one that stands for no evidence.
    eligible = functional.pad(allowed[:, 1:], (1, 0), value=True).unsqueeze(-1)
    finite = (torch.isfinite(logits) | ~eligible).flatten(1).all(dim=1)
    logits = logits.masked_fill(~(finite[:, None, None] & eligible), 0.0)
    if decoding.rank == "product":
        logits = logits.masked_fill(~eligible, _NOTHING).log_softmax(dim=1).masked_fill(~eligible, 0.0)
    starts, ends = logits.unbind(dim=-1)
    return starts, ends, finite


def _lowest(values: Tensor, pair_index: Tensor, pairs: int) -> Tensor:
    """Give the lowest of each pair's values."""
    return values.new_full((pairs,), float("inf")).scatter_reduce(0, pair_index, values, "amin")


def _taken(values: Tensor, place: Tensor, missing: float | bool) -> Tensor:
    taken: Tensor = values.flatten()[place.clamp(min=0)].masked_fill(place < 0, missing)
    return taken


def _whole(first: Tensor, last: Tensor, allowed: Tensor, longest: int) -> Tensor:
    begin = allowed.int().argmax(dim=1, keepdim=True)
    end = allowed.shape[1] - 1 - allowed.flip(1).int().argmax(dim=1, keepdim=True)
    return (first == begin) & ((last == end) | (last - first + 1 == longest))


def _same(spans: PairSpans) -> Tensor:
    """Say which spans of a pair [P, N, N] are the same characters."""
    same: Tensor = (spans.start.unsqueeze(2) == spans.start.unsqueeze(1)) & (
        spans.end.unsqueeze(2) == spans.end.unsqueeze(1)
    )
    return same


def _with_shares_added(spans: PairSpans) -> PairSpans:
    """Add the probabilities of equal spans up, and sort again.

    The softmax's denominator is the same for all spans of a pair and for "no evidence", so that it needs no computing.
    """
    score = spans.score.unsqueeze(1).masked_fill(~_same(spans), _NOTHING).logsumexp(dim=-1)
    return _in_order(spans._replace(score=score), score.argsort(dim=1, descending=True, stable=True))


def _without_overlaps(spans: PairSpans, most: float) -> PairSpans:
    """Put first, the best first, the spans that share at most so much with a better one of them; forget the others."""
    start, end, score, _ = spans
    shared = torch.minimum(end.unsqueeze(2), end.unsqueeze(1)) - torch.maximum(start.unsqueeze(2), start.unsqueeze(1))
    shared = shared.clamp(min=0)
    union = (end - start).unsqueeze(2) + (end - start).unsqueeze(1) - shared
    hides = (shared > most * union) | _same(spans)
    kept = score > _NOTHING
    for place in range(1, kept.shape[1]):
        kept[:, place] &= ~(kept[:, :place] & hides[:, place, :place]).any(dim=1)
    return _in_order(
        spans._replace(score=score.masked_fill(~kept, _NOTHING)), (~kept).byte().argsort(dim=1, stable=True)
    )


def _in_order(spans: PairSpans, order: Tensor) -> PairSpans:
    return PairSpans(*(column.gather(1, order) for column in spans))
