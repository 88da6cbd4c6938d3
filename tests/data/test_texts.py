import numpy as np

from lightning_hpo.data.ragged import Ragged
from lightning_hpo.data.texts import Texts, text_stretches

MANY = [f"☺ {number}\r\n" * (number % 3) for number in range(5000)]


def test_texts_come_back_as_they_were_one_by_one_and_in_any_order() -> None:
    texts = Texts(Ragged.gathered(text_stretches(MANY), np.uint8))
    assert list(texts) == MANY
    assert len(texts) == len(MANY)
    assert [texts[4000], texts[1]] == [MANY[4000], MANY[1]]
