"""The page: pictures and tables under headings, with everything that it needs inside."""

from collections.abc import Sequence
from datetime import datetime

from jinja2 import Environment, PackageLoader

from lightning_hpo.report import interactive
from lightning_hpo.report.picture import Picture
from lightning_hpo.report.table import Table

__all__ = ["page"]


def page(title: str, parts: Sequence[Picture | Table], made: datetime) -> str:
    """The whole page as HTML; it opens without a network.

    Args:
        title: Its heading.
        parts: What it shows, in this order.
        made: When the figures were read.
    """
    environment = Environment(loader=PackageLoader("lightning_hpo", "report"), autoescape=True)
    template = environment.get_template("page.html")
    when = f"{made:%Y-%m-%d %H:%M}"
    return template.render(title=title, parts=parts, made=when, scripts=interactive.scripts(), draw=_draw)


def _draw(picture: Picture, number: int) -> str:
    panel = picture.panels[number]
    # Panels of one picture mean the same by the same colours: the first explains them.
    return interactive.draw(panel, f"{picture.name}-{number}", legend=number == 0)
