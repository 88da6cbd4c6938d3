"""Find a sentence of an annotation in its post."""

import html
import re
import unicodedata

import regex

from lightning_hpo.data.graphemes import whole_graphemes

__all__ = ["find_sentence"]

Span = tuple[int, int]
"""Character range [start, end)."""

# An HTML entity or a grapheme.
_PIECE = regex.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z][A-Za-z\d]{1,31});|\X")
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        # Without width: zero-width space, joiners, word joiner, byte order mark, soft hyphen, direction marks, and the
        # selectors of text and emoji style.
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\ufe0e\ufe0f", ""),
    }
)


def find_sentence(post: str, sentence: str) -> tuple[tuple[Span, ...], str]:
    """Find all occurrences of a sentence in a post, without the white space around the sentence.

    The first of these searches that finds something decides:

    1. verbatim, with whole words at both ends
    2. verbatim
    3. with any white space between words (double blanks, line breaks), with whole words at both ends
    4. with any white space between words
    5. with other signs that look alike: quotes, dashes, composed or decomposed accents, HTML entities, ligatures, and
       characters without width

    Returns:
        The occurrences as character ranges [start, end) that cut no grapheme, and what differs: "white space", "signs",
        or an empty text.
    """
    spans, repair = _search(post, sentence)
    return tuple(dict.fromkeys(whole_graphemes(post, *span) for span in spans)), repair


def _search(post: str, sentence: str) -> tuple[tuple[Span, ...], str]:
    words = sentence.split()
    if not words:
        return (), ""
    # Without `re`: compiling a pattern for each sentence takes far longer than the search itself.
    text = sentence.strip()
    if spans := _occurrences(post, text, whole_words=True) or _occurrences(post, text, whole_words=False):
        return spans, ""
    if spans := _with_any_space(post, words):
        return spans, "white space"
    plain, places = _plain(post)
    words = _plain(sentence)[0].split()
    found = _with_any_space(plain, words) if words else ()
    return tuple((places[first][0], places[last - 1][1]) for first, last in found), "signs" if found else ""


def _with_any_space(text: str, words: list[str]) -> tuple[Span, ...]:
    pattern = r"\s+".join(map(re.escape, words))
    for candidate in (_whole_words(pattern, words), pattern):
        if spans := tuple(match.span() for match in re.finditer(candidate, text)):
            return spans
    return ()


def _plain(text: str) -> tuple[str, list[Span]]:
    """Return a text with one sign for all that look alike, and for each character its range in the text."""
    signs, places = [], []
    for match in _PIECE.finditer(text):
        piece = match.group()
        sign = html.unescape(piece) if len(piece) > 1 else piece
        plain = unicodedata.normalize("NFKC", sign.translate(_ALIKE)).translate(_ALIKE)
        signs.append(plain)
        places += [match.span()] * len(plain)
    return "".join(signs), places


def _occurrences(post: str, text: str, *, whole_words: bool) -> tuple[Span, ...]:
    """Return the occurrences of a text that do not overlap."""
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
    """Return whether two neighbouring characters belong to one word."""
    return all(sign == "_" or sign.isalnum() for sign in (left, right))


def _whole_words(pattern: str, words: list[str]) -> str:
    before = r"(?<!\w)" if re.match(r"\w", words[0][0]) else ""
    after = r"(?!\w)" if re.match(r"\w", words[-1][-1]) else ""
    return f"{before}{pattern}{after}"
