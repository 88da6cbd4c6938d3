"""The n best spans of windows, and the n best of all windows of a pair: exact, without a table of all spans."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["best_of_pairs", "best_spans"]

_NOTHING = float("-inf")


def best_spans(
    starts: Tensor, ends: Tensor, allowed: Tensor, longest: int, n_best: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the best spans of each window, the best first; of equal ones the one that starts, or else ends, first.

    Only starts that are among the n best by the best span that each of them begins can begin one of the n best spans:
    every other has n spans before it. So T sums and n times `longest` more are looked at, not T times `longest`.

    Args:
        starts: [W, T] finite logits of a start.
        ends: [W, T] finite logits of an end.
        allowed: [W, T] true for the tokens that a span may start and end with.
        longest: Most tokens of a span.
        n_best: How many to find.

    Returns:
        First token, last token, and score, each [W, N] with N = `n_best`, or less where windows are too short; the
        score is minus infinity where there is no such span.
    """
    tokens = starts.shape[1]
    width, kept = min(longest, tokens), min(n_best, tokens)
    starts = starts.masked_fill(~allowed, _NOTHING)
    ends = functional.pad(ends.masked_fill(~allowed, _NOTHING), (0, width - 1), value=_NOTHING)
    # The best end that a start can reach is a running maximum.
    reach = starts + functional.max_pool1d(ends, width, stride=1)
    # Stable sorts, and the starts put back in their order, keep equal spans in theirs; topk would not.
    first = reach.argsort(dim=1, descending=True, stable=True)[:, :kept].sort(dim=1).values
    last = first.unsqueeze(-1) + torch.arange(width, device=starts.device)
    score = starts.gather(1, first).unsqueeze(-1) + ends.gather(1, last.flatten(1)).view_as(last)
    score, place = (side[:, :n_best] for side in score.flatten(1).sort(dim=1, descending=True, stable=True))
    first = first.gather(1, place // width)
    return first, (first + place % width).clamp(max=tokens - 1), score


def best_of_pairs(score: Tensor, pair_index: Tensor, pairs: int, n_best: int) -> Tensor:
    """Find the best spans of each pair among those of its windows; of equal ones the first.

    Args:
        score: [W, N] of the spans of each window.
        pair_index: [W] the pair of each window.
        pairs: How many pairs there are, P.
        n_best: How many to find.

    Returns:
        Their places [P, n_best] in `score.flatten()`; -1 where a pair has no more spans.
    """
    owner = pair_index.repeat_interleave(score.shape[1])
    order = score.flatten().argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    rank = torch.arange(len(order), device=score.device) - torch.searchsorted(owner, owner)
    # What ranks too low goes into a column more: to leave it out would make a GPU wait.
    places = order.new_full((pairs, n_best + 1), -1)
    places[owner, rank.clamp(max=n_best)] = order
    return places[:, :n_best]
