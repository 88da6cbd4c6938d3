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
    # By hand, since compiling a pattern for every sentence takes far longer than all searching.
    text = sentence.strip()
    if spans := _occurrences(post, text, whole_words=True) or _occurrences(post, text, whole_words=False):
        return spans, True
    pattern = r"\s+".join(map(re.escape, words))
    for candidate in (_whole_words(pattern, words), pattern):
        if spans := tuple(match.span() for match in re.finditer(candidate, post)):
            return spans, False
    return (), True


def _occurrences(post: str, text: str, *, whole_words: bool) -> tuple[tuple[int, int], ...]:
    """Where a text stands in a post, no two places sharing a character."""
    spans = []
    start = post.find(text)
    while start >= 0:
        end = start + len(text)
        cut = whole_words and (_joined(post[start - 1 : start], text[0]) or _joined(text[-1], post[end : end + 1]))
        if not cut:
            spans.append((start, end))
        start = post.find(text, start + 1 if cut else end)
    return tuple(spans)


def _joined(left: str, right: str) -> bool:
    """Whether a word goes on from one character to the next."""
    return all(sign == "_" or sign.isalnum() for sign in (left, right))


def _whole_words(pattern: str, words: list[str]) -> str:
    before = r"(?<!\w)" if re.match(r"\w", words[0][0]) else ""
    after = r"(?!\w)" if re.match(r"\w", words[-1][-1]) else ""
    return f"{before}{pattern}{after}"
