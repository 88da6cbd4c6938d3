import sys

import pytest

from lightning_hpo.terminal.printable import print_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("boom\x1b[2J", r"boom\x1b[2J"),
        ("a\rb\x00\x7f\x9b31m", r"a\rb\x00\x7f\x9b31m"),
        ("abc\u202edcba", r"abc\u202edcba"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_other_characters_stay() -> None:
    text = "epoch 1\tof 3\n\u2501 \u4f60\u597d \U0001f600"
    assert printable(text) == text


def test_line_goes_to_standard_output_or_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x1b")
    print_line("b\x1b", sys.stderr)
    assert tuple(capsys.readouterr()) == ("a\\x1b\n", "b\\x1b\n")
