"""How a pair's answers are scored, as SQuAD 2.0 and MultiSpanQA do, over characters where they count words."""

from collections.abc import Sequence

__all__ = ["Span", "partial_matches", "span_exact", "span_f1"]

Span = tuple[int, int]


def span_f1(predicted: Span | None, gold: Sequence[Span]) -> float:
    """Score one answer, as SQuAD 2.0's F1 does (Rajpurkar et al. 2018).

    SQuAD counts the words that two texts share, wherever they stand; this counts characters at the same place.

    Args:
        predicted: Characters [start, end), or None for "no evidence".
        gold: The spans that are right, of which the nearest counts; empty for "no evidence".

    Returns:
        Twice the shared characters over the characters of both; with "no evidence" on a side 1 if the other side
        says the same, else 0.
    """
    if predicted is None or not gold:
        return float(predicted is None and not gold)
    return max(_overlap_f1(predicted, span) for span in gold)


def span_exact(predicted: Span | None, gold: Sequence[Span]) -> float:
    """Score one answer by 1 where it is one of the right ones, character by character, else 0.

    SQuAD's exact match leaves articles, punctuation and case out of account; a place in a post has none.

    Args:
        predicted: Characters [start, end), or None for "no evidence".
        gold: The spans that are right; empty for "no evidence".
    """
    return float(predicted in gold if predicted is not None else not gold)


def partial_matches(predicted: Sequence[Span], gold: Sequence[Span]) -> tuple[list[float], list[float]]:
    """Match all answers with all evidence, as MultiSpanQA's partial match does (Li et al. 2022, NAACL).

    Args:
        predicted: Some answers, the best first.
        gold: The spans that are right.

    Returns:
        For each answer, the largest part of it that one right span shares; and for each number of answers from one
        on, the sum over the right spans of the largest part of each that one of so many answers shares.
    """
    shared = [[_shared(answer, span) for span in gold] for answer in predicted]
    precision = [
        max((chars / max(end - start, 1) for chars in row), default=0.0)
        for (start, end), row in zip(predicted, shared, strict=True)
    ]
    recall, most = [], [0.0] * len(gold)
    for row in shared:
        parts = [chars / max(end - start, 1) for chars, (start, end) in zip(row, gold, strict=True)]
        most = [max(pair) for pair in zip(most, parts, strict=True)]
        recall.append(sum(most))
    return precision, recall


def _overlap_f1(one: Span, other: Span) -> float:
    total = one[1] - one[0] + other[1] - other[0]
    return 2 * _shared(one, other) / total if total else 0.0


def _shared(one: Span, other: Span) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
