"""Training targets of windows, and their label tensors for the agents."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_hpo.data.tokenization import TokenizedText

__all__ = ["IGNORED", "WindowTarget", "criteria_labels", "evidence_labels", "window_targets"]

# The label that PyTorch's losses ignore.
IGNORED = -100


@dataclass(frozen=True)
class WindowTarget:
    """Label and evidence of one window.

    Attributes:
        label: 1 if the window contains a sentence of evidence, 0 if it contains no part of one, -100 (ignored) if its
            border cuts one.
        spans: First and last token (inclusive, counted from the window's first token of the post) of each piece of
            evidence in the window. A prediction of any of them is correct.
        partial: Whether the evidence is the largest part of a sentence that no window contains as a whole.
    """

    label: int
    spans: tuple[tuple[int, int], ...] = ()
    partial: bool = False


def window_targets(
    post: TokenizedText, ranges: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]], *, met: bool
) -> list[WindowTarget]:
    """Return the targets of all windows of one pair.

    | evidence in the window | label |
    |---|---|
    | a whole sentence | 1 |
    | a part of a sentence only | ignored; 1 for the largest part if no window contains a whole sentence |
    | none | 0 |
    | the pair is met, but its evidence was not found | 1 for every window |

    Args:
        post: The whole post.
        ranges: Token range [first, stop) of each window.
        spans: Evidence as character ranges of the post.
        met: Whether the post meets the criterion.
    """
    tokens = [found for span in spans if (found := post.tokens_of(span))]
    if not tokens:
        return [WindowTarget(int(met))] * len(ranges)
    targets = [_target(window, tokens) for window in ranges]
    if all(target.label != 1 for target in targets):
        largest = max(range(len(ranges)), key=lambda index: max(_shared(ranges[index], span) for span in tokens))
        targets[largest] = _largest_part(ranges[largest], tokens)
    return targets


def criteria_labels(targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:  # noqa: ARG001
    """Return `labels` [windows]: 1 met, 0 not met, -100 ignored."""
    return {"labels": torch.tensor([target.label for target in targets])}


def evidence_labels(targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
    """Return `start_positions` and `end_positions` [windows, pieces]: first and last token of each piece of evidence.

    Token 0, which never belongs to the post, stands for no evidence. Rows of windows with fewer pieces are padded with
    -100. A row of -100 only means that the window is ignored. `post_starts` has the index of the first token of the
    post in each window.
    """
    rows = [_pieces(target, start) for target, start in zip(targets, post_starts, strict=True)]
    most = max((len(row) for row in rows), default=1)
    table = torch.tensor([row + [(IGNORED, IGNORED)] * (most - len(row)) for row in rows]).view(len(rows), most, 2)
    return {"start_positions": table[..., 0].contiguous(), "end_positions": table[..., 1].contiguous()}


def _pieces(target: WindowTarget, start: int) -> list[tuple[int, int]]:
    if target.spans:  # each once: the loss sums the likelihood of all pieces, so a duplicate would count twice
        return list(dict.fromkeys((first + start, last + start) for first, last in target.spans))
    return [(0, 0) if target.label == 0 else (IGNORED, IGNORED)]


def _target(window: tuple[int, int], tokens: Sequence[tuple[int, int]]) -> WindowTarget:
    whole = [span for span in tokens if window[0] <= span[0] and span[1] < window[1]]
    if whole:
        return WindowTarget(1, tuple((first - window[0], last - window[0]) for first, last in whole))
    return WindowTarget(IGNORED if any(_shared(window, span) for span in tokens) else 0)


def _largest_part(window: tuple[int, int], tokens: Sequence[tuple[int, int]]) -> WindowTarget:
    first, last = max(tokens, key=lambda span: _shared(window, span))
    part = (max(first, window[0]) - window[0], min(last, window[1] - 1) - window[0])
    return WindowTarget(1, (part,), partial=True)


def _shared(window: tuple[int, int], span: tuple[int, int]) -> int:
    """Return the number of tokens of a span (last token inclusive) in a window."""
    return max(0, min(window[1], span[1] + 1) - max(window[0], span[0]))
