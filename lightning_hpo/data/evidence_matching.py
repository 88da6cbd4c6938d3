"""Finds annotated sentences in their post."""

import re

__all__ = ["find_sentence"]


def find_sentence(post: str, sentence: str) -> tuple[tuple[tuple[int, int], ...], bool]:
    """Where a sentence occurs in a post.

    Args:
        post: The post's text.
        sentence: The sentence; white space around it does not count.

    Returns:
        Every occurrence as a character range [start, end), and whether it is verbatim. Only where there is no verbatim
        occurrence may white space differ. Occurrences that end amid a word count only where there is no better one.
    """
    words = sentence.split()
    if not words:
        return (), True
    for pattern, verbatim in ((re.escape(sentence.strip()), True), (r"\s+".join(map(re.escape, words)), False)):
        for candidate in (_whole_words(pattern, words), pattern):
            if spans := tuple(match.span() for match in re.finditer(candidate, post)):
                return spans, verbatim
    return (), True


def _whole_words(pattern: str, words: list[str]) -> str:
    before = r"(?<!\w)" if re.match(r"\w", words[0][0]) else ""
    after = r"(?!\w)" if re.match(r"\w", words[-1][-1]) else ""
    return f"{before}{pattern}{after}"
