"""Exact search for the n best spans of windows and of pairs, without a table of all spans."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["best_of_pairs", "best_spans"]

_NOTHING = float("-inf")


def best_spans(
    starts: Tensor, ends: Tensor, allowed: Tensor, longest: int, n_best: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the best spans of each window, best first. Ties are sorted by start, then by end.

    Each start has a best span. Sort the starts by its score: only the first n starts can begin one of the n best spans,
    since every other start has n better spans. So this computes T + n * `longest` sums instead of T * `longest`.

    Args:
        starts: [W, T] finite start logits.
        ends: [W, T] finite end logits.
        allowed: [W, T] true for the tokens at which a span may start and end.
        longest: Maximum length of a span, in tokens.
        n_best: Number of spans to find, n.

    Returns:
        First token, last token and score, each [W, N] with N = `n_best`, or fewer if the windows are too short. The
        score is minus infinity if there is no such span.
    """
    tokens = starts.shape[1]
    width, kept = min(longest, tokens), min(n_best, tokens)
    starts = starts.masked_fill(~allowed, _NOTHING)
    ends = functional.pad(ends.masked_fill(~allowed, _NOTHING), (0, width - 1), value=_NOTHING)
    # The best end within reach of a start is a running maximum.
    reach = starts + functional.max_pool1d(ends, width, stride=1)
    # Stable sorts, and starts sorted back into their order, keep the order of ties. topk would not.
    first = reach.argsort(dim=1, descending=True, stable=True)[:, :kept].sort(dim=1).values
    last = first.unsqueeze(-1) + torch.arange(width, device=starts.device)
    score = starts.gather(1, first).unsqueeze(-1) + ends.gather(1, last.flatten(1)).view_as(last)
    score, place = (side[:, :n_best] for side in score.flatten(1).sort(dim=1, descending=True, stable=True))
    first = first.gather(1, place // width)
    return first, (first + place % width).clamp(max=tokens - 1), score


def best_of_pairs(score: Tensor, pair_index: Tensor, pairs: int, n_best: int) -> Tensor:
    """Find the best spans of each pair among those of its windows. Ties keep their order.

    Args:
        score: [W, N] scores of the spans of each window.
        pair_index: [W] index of the pair of each window.
        pairs: Number of pairs, P.
        n_best: Number of spans to find.

    Returns:
        Indices [P, n_best] into `score.flatten()`; -1 if a pair has no more spans.
    """
    owner = pair_index.repeat_interleave(score.shape[1])
    order = score.flatten().argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    rank = torch.arange(len(order), device=score.device) - torch.searchsorted(owner, owner)
    # Spans with a lower rank go into one more column, which is dropped: a boolean mask would wait for the GPU.
    places = order.new_full((pairs, n_best + 1), -1)
    places[owner, rank.clamp(max=n_best)] = order
    return places[:, :n_best]
