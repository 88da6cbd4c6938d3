import pytest

from lightning_hpo.data.annotations import find_sentence


@pytest.mark.parametrize(
    ("post", "sentence", "expected"),
    [
        ("I am sad. I am sad.", "I am sad.", (((0, 9), (10, 19)), True)),
        ("All of it.", " All of it. ", (((0, 10),), True)),
        ("I am\r\n\n  sad.", "I am sad.", (((0, 13),), False)),
        ("unsad sad", "sad", (((6, 9),), True)),
        ("unsadly", "sad", (((2, 5),), True)),
        ("(a+b) [c](d)", "[c](d)", (((6, 12),), True)),
        ("something else", "I am sad.", ((), True)),
        ("I am sad.", "  ", ((), True)),
    ],
)
def test_find_sentence(post: str, sentence: str, expected: tuple[tuple[tuple[int, int], ...], bool]) -> None:
    assert find_sentence(post, sentence) == expected
