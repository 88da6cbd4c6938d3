import itertools
import struct
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Sheet
from matplotlib.text import Text
from optuna.distributions import BaseDistribution, CategoricalDistribution

from lightning_hpo.report.figures import figures
from lightning_hpo.report.matplotlib_figures import save
from lightning_hpo.report.study_record import StudyRecord
from tests.report.studies import WIDE, all_outcomes, make_study, make_trial

NAMES = ["history", "curves", "importance", "slices", "parallel", "timeline", "outcomes"]


def _save(name: str, record: StudyRecord, folder: Path) -> tuple[int, int]:
    """Save a figure, and return width and height in pixels."""
    path = folder / f"{name}.png"
    save(figures(record)[name], record, path)
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    """The sheets that are closed after they were saved."""
    closed: list[Sheet] = []
    close = plt.close

    def record(sheet: Sheet) -> None:
        closed.append(sheet)
        close(sheet)

    monkeypatch.setattr(plt, "close", record)
    return closed


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_saved_and_leaves_pyplot_as_it_was(name: str, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    width, height = _save(name, StudyRecord(make_study(None, all_outcomes()), {}), tmp_path)
    assert width > 600
    assert height > 250
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_figure_grows_with_its_rows(tmp_path: Path) -> None:
    heights = []
    for count in (3, 30):
        kinds = {f"model.some.parameter_{number}": WIDE["model.optim.lr"] for number in range(count)}
        record = StudyRecord(make_study(None, [make_trial(number, kinds=kinds) for number in range(30)]), {})
        heights.append(_save("importance", record, tmp_path)[1])
    assert heights[1] > 2 * heights[0]


@pytest.mark.parametrize("name", ["importance", "slices", "parallel"])
def test_dollar_signs_are_not_read_as_formulas(name: str, tmp_path: Path, sheets: list[Sheet]) -> None:
    kinds: dict[str, BaseDistribution] = {
        "$broken": CategoricalDistribution([r"\frac$", "long " * 20]),
        "lr": WIDE["model.optim.lr"],
    }
    record = StudyRecord(make_study(None, [make_trial(number, kinds=kinds) for number in range(12)]), {})
    _save(name, record, tmp_path)
    assert any("$broken" in text.get_text() for text in _texts(sheets[0]))


@pytest.mark.parametrize("name", ["slices", "importance"])
def test_no_label_overlaps_another(name: str, tmp_path: Path, sheets: list[Sheet]) -> None:
    _save(name, StudyRecord(make_study(None, [make_trial(number, kinds=WIDE) for number in range(60)]), {}), tmp_path)
    (sheet,) = sheets
    sheet.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in _texts(sheet)]
    assert [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)] == []


def _texts(sheet: Sheet) -> list[Text]:
    return [text for axes in sheet.axes for text in _visible(axes)]


def _visible(axes: Axes) -> list[Text]:
    """Return the texts of the axes; a tick beyond the limits has a label, too."""
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    numbers = [text for text in axes.get_xticklabels(which="both") if left <= text.get_position()[0] <= right]
    names = [text for text in axes.get_yticklabels() if low <= text.get_position()[1] <= high]
    texts = [*axes.texts, *numbers, *names, axes.xaxis.label, axes.yaxis.label]
    return [text for text in texts if text.get_visible() and text.get_text()]
