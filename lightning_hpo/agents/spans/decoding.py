"""Span decoding: from the start and end logits of windows to the answers of a pair."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lightning_hpo.agents.settings import Settings
from lightning_hpo.agents.spans.n_best import best_of_pairs, best_spans
from lightning_hpo.data.graphemes import whole_graphemes
from lightning_hpo.data.sentences import Sentences
from lightning_hpo.exceptions import InputError, NotFiniteError
from lightning_hpo.flag_types import Bounds

__all__ = ["Decoding", "NullPolicy", "PairSpans", "Rank", "Snap", "answer_rows", "decode_pairs", "with_whole_graphemes"]

NullPolicy = Literal["none", "threshold", "ratio", "calibrated"]
Rank = Literal["sum", "product", "softmax"]
Snap = Literal["none", "sentence"]

_NEVER = 1e38  # finite, also in float32
_NOTHING = float("-inf")
_WINDOWS_AT_ONCE = 256  # the search for spans takes far more memory than the logits, and a long post has many windows
_LOWEST_SCORE = -1e6  # score of a pair without any legal span: finite, as JSON requires


@dataclass(frozen=True)
class Decoding(Settings):
    """The span decoding: from logits to answers.

    The score of a span is its log odds against "no evidence". `rank` defines the probabilities. The null policy turns
    the score into a decision. A pair without an answer has "no evidence".

    Args:
        max_answer_tokens: Maximum length of a span, in tokens. Usual: 30 to 300.
        null_policy: When the answer is "no evidence": none (never); threshold (score below -null_threshold); ratio
            (probability below null_ratio); or calibrated: like threshold, with the null_threshold that has the highest
            val_metric on the validation split, fitted after each epoch.
        null_threshold: Margin, in logits, by which "no evidence" must beat the best span, for the policy threshold. A
            higher margin finds more evidence. Usual: -5 to 5. Initial value of the policy calibrated.
        null_ratio: Minimum of p(span) / (p(span) + p(no evidence)) of an answer, for the policy ratio. Usual: 0.3 to
            0.7.
        top_k: Maximum number of answers to a pair, best first. Each answer must pass the null policy. Usual: 1 to 5.
        overlap: Maximum overlap with a better answer, as intersection over union of characters. Answers with more
            overlap are dropped. Usual: 0 to 0.5. Ignored if top_k is 1.
        n_best: Number of best spans of a pair, over all its windows, to choose answers from; top_k or more. Usual: 20.
            Ignored if top_k is 1, except with the rank softmax.
        rank: Probability of a span: sum (start logit + end logit, as in the evaluation of SQuAD); product (of the start
            and the end probability within the window); or softmax (over the sums of the n_best spans; adds the
            probabilities of a span that occurs in several windows). They differ for posts with several windows only.
        snap: Whether the bounds of each span stay as they are (none), or move to those of the sentences that it touches
            (sentence), where annotators mark whole sentences. Spans that become equal count as one, as for rank and
            top_k. They may be longer than max_answer_tokens.
    """

    FLAG: ClassVar[str] = "--model.decoding"

    max_answer_tokens: Annotated[int, Bounds(1, 1_000_000)] = 200
    null_threshold: Annotated[float, Bounds(-1e6, 1e6)] = 0.0
    null_policy: NullPolicy = "threshold"
    null_ratio: Annotated[float, Bounds(0.001, 0.999)] = 0.5
    top_k: Annotated[int, Bounds(1, 1000)] = 1
    overlap: Annotated[float, Bounds(0, 1)] = 0.5
    n_best: Annotated[int, Bounds(1, 1000)] = 20
    rank: Rank = "sum"
    snap: Snap = "none"

    @property
    def threshold(self) -> float:
        """The maximum log odds of "no evidence" against a span at which the span is an answer.

        Every policy reduces to it. A ratio r is equal to log((1 - r) / r). The policy none is a number below the
        infinite odds of a span that does not exist, and above all others.
        """
        if self.null_policy == "none":
            return _NEVER
        if self.null_policy == "ratio":
            return math.log((1 - self.null_ratio) / self.null_ratio)
        return self.null_threshold

    @property
    def candidates(self) -> int:
        """Number of best spans of a pair that are needed to choose its answers."""
        return max(self.n_best, self.top_k) if self.top_k > 1 or self.rank == "softmax" else 1


class PairSpans(NamedTuple):
    """The K best spans of P pairs, best first. The null policy decides which of them are answers.

    Attributes:
        start: [P, K] first character of each span; -1 if the pair has no span.
        end: [P, K] character after the last one of each span; -1 if the pair has no span.
        score: [P, K] log odds of each span against "no evidence"; minus infinity if there is no further span, NaN if
            the logits of the pair are not finite.
        whole: [P, K] true if the span, before it snaps to sentences, covers the whole post text of its window, or its
            first `max_answer_tokens`.
    """

    start: Tensor
    end: Tensor
    score: Tensor
    whole: Tensor


def decode_pairs(
    logits: Tensor,
    offsets: Tensor,
    pair_index: Tensor,
    pairs: int,
    decoding: Decoding,
    texts: Sequence[str] | None = None,
) -> PairSpans:
    """Find the best spans of each pair over all its windows, as in the evaluation of SQuAD 2.0.

    The logit of "no evidence" is the minimum over the windows of start + end logit at the first token.

    Args:
        logits: [W, T, 2] start and end logits.
        offsets: [W, T, 2] characters of each token in its post; -1 for tokens outside the post.
        pair_index: [W] index of the pair of each window.
        pairs: Number of pairs, P.
        decoding: Settings of the decoding.
        texts: The post of each pair, which `snap` needs.

    Raises:
        InputError: If spans should snap to sentences and there are no texts.
    """
    allowed = offsets[..., 0] >= 0
    starts, ends, finite = _sides(logits.float(), allowed, decoding)
    parts = zip(*(torch.split(side, _WINDOWS_AT_ONCE) for side in (starts, ends, allowed)), strict=True)
    longest, n_best = decoding.max_answer_tokens, decoding.candidates
    best = [best_spans(start, end, mask, longest, n_best) for start, end, mask in parts]
    first, last, score = (torch.cat(column) for column in zip(*best, strict=True))
    place = best_of_pairs(score, pair_index, pairs, decoding.candidates)
    window = torch.arange(len(score), device=score.device).unsqueeze(-1)
    null = _lowest(starts[:, 0] + ends[:, 0], pair_index, pairs)
    found = PairSpans(
        start=_gathered(offsets[window, first, 0], place, -1),
        end=_gathered(offsets[window, last, 1], place, -1),
        score=_gathered(score, place, _NOTHING) - null.unsqueeze(1),
        whole=_gathered(_whole(first, last, allowed, decoding.max_answer_tokens), place, False),
    )
    if decoding.snap == "sentence":
        found = _snapped(found, texts)
    if decoding.rank == "softmax":
        found = _with_equal_spans_added(found)
    if decoding.top_k > 1:
        found = _without_overlaps(found, decoding.overlap)
    finite_pairs = _lowest(finite.float(), pair_index, pairs).bool()
    start, end, score, whole = (column[:, : decoding.top_k] for column in found)
    return PairSpans(start, end, score.masked_fill(~finite_pairs.unsqueeze(1), float("nan")), whole)


def answer_rows(spans: PairSpans, threshold: float) -> list[dict[str, Any]]:
    """Return the answer to each pair as plain values, at a threshold of the null policy.

    Returns:
        A row for each pair: `start`, `end` and `score` of its best span, and `null` (true for "no evidence"). If
        several answers are allowed, `answers` lists `start`, `end` and `score` of each answer.

    Raises:
        NotFiniteError: If logits of a pair are NaN or infinite.
    """
    if bool(spans.score.isnan().any()):
        raise NotFiniteError(
            "the logits are NaN or infinite, so the model has no answer; train with a lower --model.optim.lr"
        )
    kept = (-spans.score <= threshold).sum(dim=1).tolist()
    columns = (spans.start.tolist(), spans.end.tolist(), spans.score.clamp(min=_LOWEST_SCORE).tolist())
    rows = []
    for count, *row in zip(kept, *columns, strict=True):
        found = [dict(zip(("start", "end", "score"), span, strict=True)) for span in zip(*row, strict=True)]
        several = {"answers": found[:count]} if len(found) > 1 else {}
        rows.append({**found[0], "null": count == 0, **several})
    return rows


def with_whole_graphemes(answer: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return an answer of `answer_rows` with each of its spans extended to whole graphemes of the post."""
    start, end = whole_graphemes(text, answer["start"], answer["end"])
    extended = {**answer, "start": start, "end": end}
    if "answers" in answer:
        extended["answers"] = [with_whole_graphemes(span, text) for span in answer["answers"]]
    return extended


def _sides(logits: Tensor, allowed: Tensor, decoding: Decoding) -> tuple[Tensor, Tensor, Tensor]:
    """Return start and end scores [W, T] and a mask [W] of the finite windows. Other windows are filled with zeros."""
    # Tokens that an answer can use: those of the post, and the first token, which represents "no evidence".
    eligible = functional.pad(allowed[:, 1:], (1, 0), value=True).unsqueeze(-1)
    finite = (torch.isfinite(logits) | ~eligible).flatten(1).all(dim=1)
    logits = logits.masked_fill(~(finite[:, None, None] & eligible), 0.0)
    if decoding.rank == "product":
        logits = logits.masked_fill(~eligible, _NOTHING).log_softmax(dim=1).masked_fill(~eligible, 0.0)
    starts, ends = logits.unbind(dim=-1)
    return starts, ends, finite


def _lowest(values: Tensor, pair_index: Tensor, pairs: int) -> Tensor:
    """Return the minimum over the windows of each pair."""
    return values.new_full((pairs,), float("inf")).scatter_reduce(0, pair_index, values, "amin")


def _gathered(values: Tensor, place: Tensor, missing: float | bool) -> Tensor:
    gathered: Tensor = values.flatten()[place.clamp(min=0)].masked_fill(place < 0, missing)
    return gathered


def _whole(first: Tensor, last: Tensor, allowed: Tensor, longest: int) -> Tensor:
    begin = allowed.int().argmax(dim=1, keepdim=True)
    end = allowed.shape[1] - 1 - allowed.flip(1).int().argmax(dim=1, keepdim=True)
    return (first == begin) & ((last == end) | (last - first + 1 == longest))


def _snapped(spans: PairSpans, texts: Sequence[str] | None) -> PairSpans:
    """Move the bounds of each span to those of the sentences that it touches."""
    if texts is None:
        raise InputError(f"{Decoding.FLAG}.snap: got sentence, but the data module's batches have no texts; use none")
    sentences = {text: Sentences(text) for text in set(texts)}
    rows = zip(texts, spans.start.tolist(), spans.end.tolist(), strict=True)
    moved = [[sentences[text].around(*span) for span in zip(starts, ends, strict=True)] for text, starts, ends in rows]
    start, end = spans.start.new_tensor(moved).unbind(dim=-1)
    return spans._replace(start=start, end=end)


def _same(spans: PairSpans) -> Tensor:
    """Return a mask [P, N, N]: which spans of a pair cover the same characters."""
    same: Tensor = (spans.start.unsqueeze(2) == spans.start.unsqueeze(1)) & (
        spans.end.unsqueeze(2) == spans.end.unsqueeze(1)
    )
    return same


def _with_equal_spans_added(spans: PairSpans) -> PairSpans:
    """Add the probabilities of equal spans, and sort again.

    The denominator of the softmax is not needed: it is the same for all spans of a pair and for "no evidence".
    """
    score = spans.score.unsqueeze(1).masked_fill(~_same(spans), _NOTHING).logsumexp(dim=-1)
    return _in_order(spans._replace(score=score), score.argsort(dim=1, descending=True, stable=True))


def _without_overlaps(spans: PairSpans, limit: float) -> PairSpans:
    """Drop spans that overlap a better kept span by more than `limit`, and move the kept spans to the front."""
    start, end, score, _ = spans
    shared = torch.minimum(end.unsqueeze(2), end.unsqueeze(1)) - torch.maximum(start.unsqueeze(2), start.unsqueeze(1))
    shared = shared.clamp(min=0)
    union = (end - start).unsqueeze(2) + (end - start).unsqueeze(1) - shared
    hides = (shared > limit * union) | _same(spans)
    kept = score > _NOTHING
    for place in range(1, kept.shape[1]):
        kept[:, place] &= ~(kept[:, :place] & hides[:, place, :place]).any(dim=1)
    return _in_order(
        spans._replace(score=score.masked_fill(~kept, _NOTHING)), (~kept).byte().argsort(dim=1, stable=True)
    )


def _in_order(spans: PairSpans, order: Tensor) -> PairSpans:
    return PairSpans(*(column.gather(1, order) for column in spans))
