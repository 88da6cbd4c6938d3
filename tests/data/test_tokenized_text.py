import numpy as np

from lightning_hpo.data.tokenized_text import TokenizedText


def _text() -> TokenizedText:
    offsets = [(0, 3), (4, 6), (-1, -1), (8, 9), (9, 12)]
    return TokenizedText(np.arange(5, dtype=np.int32), np.array(offsets, np.int32))


def test_the_tokens_of_a_span() -> None:
    text = _text()
    assert text.tokens_of((4, 9)) == (1, 3)
    assert text.tokens_of((2, 5)) == (0, 1)
    assert text.tokens_of((6, 8)) is None
    assert text.tokens_of((0, 100)) == (0, 4)


def test_a_part_keeps_its_place_in_the_text() -> None:
    assert _text().part(1, 3).characters() == (4, 6)
    assert _text().characters() == (0, 12)
    assert _text().part(2, 3).characters() == (0, 0)
    assert len(_text().part(3, 5)) == 2
