import struct
from pathlib import Path

from lightning_hpo.report.picture import Panel, Picture, Series
from lightning_hpo.report.still import save


def _size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_rows_with_names_make_a_picture_higher(tmp_path: Path) -> None:
    for count in (3, 40):
        places = [float(-place) for place in range(count)]
        bars = Series("", "#0072b2", [1.0] * count, places, kind="bars")
        panel = Panel("share", "", [bars], y_ticks={place: f"model.some.parameter_{place}" for place in places})
        save(Picture(f"bars-{count}", "Bars", "", [panel]), tmp_path / f"{count}.png")
    assert _size(tmp_path / "40.png")[1] > 2 * _size(tmp_path / "3.png")[1]


def test_dollars_are_no_formula_and_nothing_is_too_long(tmp_path: Path) -> None:
    dots = Series("$broken", "#0072b2", [1e-5, 2e-5, None], [0.0, 1.0, None])
    panel = Panel(r"\frac$ " + "long " * 40, "score", [dots], levels={"$": 0.5}, x_log=True)
    save(Picture("odd", "$Odd", "", [panel]), tmp_path / "odd.png")
    assert _size(tmp_path / "odd.png")[0] > 1000
