"""From the logits of windows to one answer a pair: the best legal span over all of its windows, or no evidence."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lightning_hpo.agents.settings import Settings, outside

__all__ = ["Decoding", "PairSpans", "best_spans", "decode_pairs"]

_NOTHING = float("-inf")
_LOWEST_SCORE = -1e6  # what a pair scores that has no legal span at all: a number that JSON can hold


@dataclass(frozen=True)
class Decoding(Settings):
    """How an answer is read from the logits.

    Args:
        max_answer_tokens: Longest evidence span, in tokens.
        null_threshold: "No evidence" must beat the best span by more than this; the higher, the more evidence is found.
    """

    FLAG: ClassVar[str] = "--model.decoding"

    max_answer_tokens: int = 200
    null_threshold: float = 0.0

    def problems(self) -> list[str]:
        """Give one line for each value that cannot be used."""
        found = outside(f"{self.FLAG}.max_answer_tokens", self.max_answer_tokens, 1, 1_000_000)
        return found + outside(f"{self.FLAG}.null_threshold", self.null_threshold, -1e6, 1e6)


class PairSpans(NamedTuple):
    """The answers to P pairs.

    Attributes:
        start: [P] first character of the best span.
        end: [P] the character after its last.
        score: [P] by how much the best span beats "no evidence", in logits.
        null: [P] true where the answer is "no evidence".
    """

    start: Tensor
    end: Tensor
    score: Tensor
    null: Tensor


def best_spans(starts: Tensor, ends: Tensor, allowed: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the best span of each window; of equal ones the first.

    Args:
        starts: [W, T] logits of a start.
        ends: [W, T] logits of an end.
        allowed: [W, T] true for the tokens that a span may start and end with.
        longest: Most tokens of a span.

    Returns:
        First token [W], last token [W], and score [W] (minus infinity where the window allows no token).
    """
    width = min(longest, starts.shape[1])
    starts = starts.masked_fill(~allowed, _NOTHING)
    ends = ends.masked_fill(~allowed, _NOTHING)
    # The best end that a start can reach is a running maximum: no table of all pairs of tokens is needed.
    reach = functional.max_pool1d(functional.pad(ends, (0, width - 1), value=_NOTHING), width, stride=1)
    score, first = (starts + reach).max(dim=1)
    place = torch.arange(starts.shape[1], device=starts.device)
    beyond = (place < first.unsqueeze(1)) | (place >= first.unsqueeze(1) + width)
    return first, ends.masked_fill(beyond, _NOTHING).argmax(dim=1), score


def decode_pairs(logits: Tensor, offsets: Tensor, pair_index: Tensor, pairs: int, decoding: Decoding) -> PairSpans:
    """Answer each pair from all of its windows, as SQuAD 2.0 does.

    "No evidence" scores what its best window denies it: the lowest over the windows of start + end at the first
    token. It is the answer if it beats the best span by more than the threshold.

    Args:
        logits: [W, T, 2] start and end logits.
        offsets: [W, T, 2] characters of each token in its post; -1 where a token is not of the post.
        pair_index: [W] the pair of each window.
        pairs: How many pairs there are, P.
        decoding: The settings.
    """
    starts, ends = logits.float().unbind(dim=-1)
    first, last, score = best_spans(starts, ends, offsets[..., 0] >= 0, decoding.max_answer_tokens)
    best = score.new_full((pairs,), _NOTHING).scatter_reduce(0, pair_index, score, "amax")
    nothing = starts[:, 0] + ends[:, 0]
    null = nothing.new_full((pairs,), float("inf")).scatter_reduce(0, pair_index, nothing, "amin")
    window = _first_best(score == best[pair_index], pair_index, pairs)
    return PairSpans(
        start=offsets[window, first[window], 0],
        end=offsets[window, last[window], 1],
        score=(best - null).clamp(min=_LOWEST_SCORE),
        null=null - best > decoding.null_threshold,
    )


def _first_best(is_best: Tensor, pair_index: Tensor, pairs: int) -> Tensor:
    windows = torch.arange(len(is_best), device=is_best.device)
    last = len(is_best) - 1
    return windows.new_full((pairs,), last).scatter_reduce(0, pair_index, windows.where(is_best, last), "amin")
