import pytest

from lightning_hpo.data.sentence_search import find_sentence


@pytest.mark.parametrize(
    ("post", "sentence", "expected"),
    [
        ("I am sad. I am sad.", "I am sad.", (((0, 9), (10, 19)), "")),
        ("All of it.", " All of it. ", (((0, 10),), "")),
        ("I am\r\n\n  sad.", "I am sad.", (((0, 13),), "white space")),
        ("unsad sad", "sad", (((6, 9),), "")),
        ("unsadly", "sad", (((2, 5),), "")),
        ("(a+b) [c](d)", "[c](d)", (((6, 12),), "")),
        ("something else", "I am sad.", ((), "")),
        ("I am sad.", "  ", ((), "")),
        ("I don\u2019t  sleep", "I don't sleep", (((0, 14),), "signs")),
        ("I don&#39;t &amp; won&rsquo;t", "I don't & won't", (((0, 29),), "signs")),
        ("she said \u201cno\u201d \u2014 twice", 'said "no" - twice', (((4, 21),), "signs")),
        ("e\u0301te\u0301 a\u0300", "\u00e9t\u00e9 \u00e0", (((0, 8),), "signs")),
        ("\u00e9t\u00e9", "e\u0301te\u0301", (((0, 3),), "signs")),
        ("so\u200b tired\u00a0of it", "so tired of it", (((0, 15),), "signs")),
        ("\ufb01ne\u2026 really", "fine... really", (((0, 11),), "signs")),
        ("I cry \U0001f469\u200d\U0001f467", "I cry \U0001f469", (((0, 9),), "")),  # whole graphemes
        ("a cafe\u0301", "a cafe", (((0, 7),), "")),
        ("I DON\u2019T sleep", "I don't sleep", ((), "")),  # upper and lower case are no signs
    ],
)
def test_find_sentence(post: str, sentence: str, expected: tuple[tuple[tuple[int, int], ...], str]) -> None:
    assert find_sentence(post, sentence) == expected
