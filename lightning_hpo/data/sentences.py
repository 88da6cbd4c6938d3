"""Sentences of a text, by their ends."""

import re

__all__ = ["sentence_ranges"]

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
