import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import BboxBase

from lightning_hpo.report.parameters import parallel, slices
from lightning_hpo.report.picture import Panel, Picture, Series
from lightning_hpo.report.still import draw, save
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import WIDE, make_study, make_trial


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


@pytest.mark.parametrize("picture", [parallel, slices])
def test_no_text_lies_on_another_or_leaves_the_sheet(picture: Callable[..., Picture]) -> None:
    study = make_study(None, [make_trial(number, kinds=WIDE) for number in range(60)])
    sheet = draw(picture(StudyRecord(study, {}), {}))
    sheet.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for axes in sheet.axes for text in _shown(axes)]
    assert [name for name, box in boxes if not _holds(sheet.bbox, box)] == []
    assert [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)] == []


def _shown(axes: Axes) -> list[Text]:
    """Texts that are seen; a tick beyond the ends of its axis has a label, too."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    numbers = [text for text in axes.get_xticklabels(which="both") if left <= text.get_position()[0] <= right]
    names = [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
    texts = [*axes.texts, *numbers, *names, axes.xaxis.label, axes.yaxis.label]
    return [text for text in texts if text.get_visible() and text.get_text()]


def _holds(sheet: BboxBase, box: BboxBase) -> bool:
    return bool(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.x1 and box.y1 <= sheet.y1)
