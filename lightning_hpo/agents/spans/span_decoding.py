"""From the logits of windows to the answers of a pair: the best legal spans over all of its windows, or no evidence."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lightning_hpo.agents.spans.decoding import Decoding
from lightning_hpo.agents.spans.search import best_of_pairs, best_spans
from lightning_hpo.exceptions import NotFiniteError

__all__ = ["PairSpans", "answer_rows", "decode_pairs"]

_NOTHING = float("-inf")
_LOWEST_SCORE = -1e6  # what a pair scores that has no legal span at all: a number that JSON can hold


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
