"""HTML page of a report: figures and tables under headings, in one file that opens without a network."""

from collections.abc import Sequence
from datetime import datetime

import plotly.offline
from jinja2 import Environment, PackageLoader

from lightning_hpo.report import plotly_figures
from lightning_hpo.report.figures import Figure
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.report.tables import Table

__all__ = ["render_page"]


def render_page(record: StudyRecord, sections: Sequence[Figure | Table], time: datetime) -> str:
    """Return the page as HTML, with plotly.js embedded.

    Args:
        record: The study.
        sections: Its sections, in this order.
        time: When the study was read.
    """
    panels = {each.name: _panels(each, record) for each in sections if isinstance(each, Figure) and each.drawn}
    environment = Environment(loader=PackageLoader("lightning_hpo", "report"), autoescape=True)
    return environment.get_template("page.html").render(
        title=f"Study {record.name}",
        sections=sections,
        panels=panels,
        time=f"{time:%Y-%m-%d %H:%M}",
        javascript=plotly.offline.get_plotlyjs(),
    )


def _panels(figure: Figure, record: StudyRecord) -> list[str]:
    drawn = plotly_figures.draw(figure.name, record)
    return [plotly_figures.to_html(each, f"{figure.name}-{index}") for index, each in enumerate(drawn)]
