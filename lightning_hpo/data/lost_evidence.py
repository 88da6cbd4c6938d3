"""Why an evidence sentence is not found in its post."""

import unicodedata
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["LOST", "causes_line", "lost_cause"]

LOST = "evidence sentences not found in their post"
_CASE = f"{LOST}, but there in other upper or lower case"
_SIGNS = f"{LOST}, but there with other punctuation, accents or white space"
_MOJIBAKE = f"{LOST}, but there in another encoding"
_ADVICE = {
    _CASE: "keep the upper and lower case of the posts",
    _SIGNS: "copy each sentence from its post as it is",
    _MOJIBAKE: "save both files in the same encoding, UTF-8",
}
# How editors and web pages garble UTF-8: they read it as one of these.
_ENCODINGS = ("cp1252", "latin-1")


def lost_cause(post: str, sentence: str) -> str | None:
    """Return the name of the count for the cause: a form in which the post has the sentence. None if it has none."""
    words, wanted = " ".join(post.split()), " ".join(sentence.split())
    if wanted.casefold() in words.casefold():
        return _CASE
    if any(repaired in words for repaired in _repaired(wanted)) or any(wanted in post for post in _repaired(words)):
        return _MOJIBAKE
    letters = _letters(wanted)
    return _SIGNS if letters and letters in _letters(words) else None


def causes_line(counts: Mapping[str, int]) -> str:
    """Return the counted causes and what to do about them, in a line, or where to look if no cause was found."""
    causes = [
        f"{counts[name]} sentences are {name.removeprefix(f'{LOST}, but ')}: {advice}"
        for name, advice in _ADVICE.items()
        if counts.get(name)
    ]
    return "; ".join(causes) or "the posts have no such sentences in any form: check that post_id names their post"


def _repaired(text: str) -> list[str]:
    """Return a text as it was if UTF-8 was read in another encoding."""
    repaired = []
    for encoding in _ENCODINGS:
        with suppress(UnicodeError):
            repaired.append(text.encode(encoding).decode())
    return [other for other in repaired if other != text]


def _letters(text: str) -> str:
    """Return the letters and digits of a text, without case and accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if sign.isalnum())
