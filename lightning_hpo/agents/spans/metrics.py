"""Metrics of the answers to one pair, as in SQuAD 2.0 and MultiSpanQA, but over characters instead of words."""

from collections.abc import Sequence

from lightning_hpo.data.sentences import Sentences

__all__ = ["Span", "partial_matches", "sentence_f1", "span_exact", "span_f1"]

Span = tuple[int, int]


def span_f1(predicted: Span | None, gold: Sequence[Span]) -> float:
    """Return the F1 of one answer, as in SQuAD 2.0 (Rajpurkar et al. 2018).

    SQuAD counts the words that two texts share, at any position. This counts shared characters at the same position.

    Args:
        predicted: Characters [start, end), or None for "no evidence".
        gold: Correct spans, of which the best match counts; empty for "no evidence".

    Returns:
        Twice the number of shared characters, divided by the characters of both spans. If one side is "no evidence": 1
        if both are, else 0.
    """
    if predicted is None or not gold:
        return float(predicted is None and not gold)
    return max(_overlap_f1(predicted, span) for span in gold)


def span_exact(predicted: Span | None, gold: Sequence[Span]) -> float:
    """Return 1 if an answer is equal to a correct span, character by character, else 0.

    SQuAD's exact match ignores articles, punctuation and case. Positions in a post have none. The arguments are those
    of `span_f1`.
    """
    return float(predicted in gold if predicted is not None else not gold)


def sentence_f1(answers: Sequence[Span], gold: Sequence[Sequence[Span]], texts: Sequence[str]) -> list[float]:
    """Return `span_f1` of the answer to each pair, in sentences that a span touches instead of characters.

    Args:
        answers: Characters [start, end) of one answer to each pair; an empty range for none.
        gold: Correct spans of each pair; empty for "no evidence".
        texts: The post of each pair.
    """
    sentences = {text: Sentences(text) for text in set(texts)}
    scores = []
    for (start, end), right, text in zip(answers, gold, texts, strict=True):
        own = sentences[text]
        answer = own.touched(start, end) if start < end else (0, 0)
        scores.append(span_f1(answer, [own.touched(*span) for span in right]))
    return scores


def partial_matches(predicted: Sequence[Span], gold: Sequence[Span]) -> tuple[list[float], list[float]]:
    """Match all answers, best first, with all evidence: the partial match of MultiSpanQA (Li et al. 2022, NAACL).

    Returns:
        Precision of each answer: the largest share of its characters that one correct span covers. And, for the first
        1, 2, 3, ... answers, the sum of the recalls of the correct spans. The recall of a span is the largest share of
        it that one of these answers covers.
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
