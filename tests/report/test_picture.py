from lightning_hpo.report.picture import Panel, broken, with_room


def test_a_label_is_broken_between_words_and_loses_nothing() -> None:
    assert broken("google/electra-large-discriminator", 22) == ["google/electra-large-", "discriminator"]
    assert broken("short", 22) == ["short"]
    assert broken("two\nlines", 22) == ["two", "lines"]
    assert broken("", 22) == [""]
    assert "".join(broken("x" * 50, 22)) == "x" * 50


def test_an_axis_has_room_at_both_ends_even_of_one_value() -> None:
    low, high = with_room([0.4, 0.6])
    assert low < 0.4 < 0.6 < high
    low, high = with_room([0.5])
    assert low < 0.5 < high


def test_an_axis_of_names_ends_half_a_row_beyond_them() -> None:
    assert Panel("", "", [], y_ticks={0.0: "a", -2.0: "b"}).y_ends == (-2.6, 0.6)
    assert Panel("", "", [], y_ticks={0.0: "a"}, y_range=(1.0, 2.0)).y_ends == (1.0, 2.0)
    assert Panel("", "", []).y_ends is None
