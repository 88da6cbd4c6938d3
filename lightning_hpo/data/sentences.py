"""Sentences of a text, by their ends."""

import re
from bisect import bisect_left, bisect_right

__all__ = ["Sentences", "sentence_ranges"]

# Closing marks belong to the sentence. A line break ends one also without a mark, as in lists.
_MARKS = ".!?…。\N{FULLWIDTH EXCLAMATION MARK}\N{FULLWIDTH QUESTION MARK}"
_CLOSING = "\"')\\]”\N{RIGHT SINGLE QUOTATION MARK}"
_SENTENCE = re.compile(rf"[^\s{_MARKS}][^\n{_MARKS}]*[{_MARKS}]*[{_CLOSING}]*")


def sentence_ranges(text: str) -> list[tuple[int, int]]:
    """Return the character range [start, end) of each sentence, without the blanks around it.

    A sentence ends at a full stop, a question or exclamation mark, an ellipsis, or the end of its line. Abbreviations
    are not known, so "e.g." ends a sentence.
    """
    return [(match.start(), match.start() + len(match[0].rstrip())) for match in _SENTENCE.finditer(text)]


class Sentences:
    """The sentences of a text, to which character ranges of the text are compared."""

    def __init__(self, text: str) -> None:
        ranges = sentence_ranges(text)
        self._starts, self._ends = [start for start, _ in ranges], [end for _, end in ranges]

    def touched(self, start: int, end: int) -> tuple[int, int]:
        """Return the range [first, stop) of the sentences that share a character with a range [start, end).

        A range between two sentences counts to the second.
        """
        first = bisect_right(self._ends, start)
        return first, max(first + 1, bisect_left(self._starts, end))

    def around(self, start: int, end: int) -> tuple[int, int]:
        """Move the bounds of a range [start, end) to those of the sentences that it touches.

        A range that touches no sentence stays as it is.
        """
        first, stop = bisect_right(self._ends, start), bisect_left(self._starts, end)
        return (self._starts[first], self._ends[stop - 1]) if start < end and first < stop else (start, end)
