import json
import re
from datetime import datetime
from html.parser import HTMLParser

from lightning_hpo.report.interactive import scripts
from lightning_hpo.report.page import page
from lightning_hpo.report.picture import Panel, Picture, Series
from lightning_hpo.report.table import Table

EVIL = "</script><img src=x onerror=alert(1)>"
NOW = datetime(2026, 1, 2)


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]


def _page() -> str:
    dots = Series(EVIL, "#0072b2", [1.0, float("nan")], [0.5, None], texts=[EVIL, ""])
    panel = Panel(EVIL, "score", [dots], levels={EVIL: 0.4}, y_ticks={0.0: EVIL}, notes=[(0.0, 0.0, EVIL)])
    parts: list[Picture | Table] = [
        Picture("history", "History", EVIL, [panel, panel]),
        Picture("empty", "Nothing", "There is nothing."),
        Table("winner", "The winner", "", ("what", EVIL), [("a", EVIL)], command=EVIL),
    ]
    return page(EVIL, parts, NOW)


def test_the_page_brings_all_that_it_needs() -> None:
    elements = _Elements(_page())
    for attributes in elements.of("script", "img", "link", "iframe", "a", "object", "source"):
        place = attributes.get("src") or attributes.get("href") or "#"
        assert place.startswith(("#", "data:"))
    assert elements.of("script")[0] == {}
    assert elements.of("form", "base") == []


def test_what_trials_say_is_text_and_never_markup() -> None:
    text = _page().replace(scripts(), "")
    assert "<img" not in text
    assert text.count("</script>") == text.count("<script")
    assert "&lt;/script&gt;" in text


def test_every_part_has_a_heading_and_is_in_the_contents() -> None:
    elements = _Elements(_page())
    (language,) = elements.of("html")
    assert language == {"lang": "en"}
    assert len(elements.of("h1")) == 1
    assert [each["id"] for each in elements.of("section")] == ["history", "empty", "winner"]
    assert [each["href"] for each in elements.of("a")] == ["#history", "#empty", "#winner"]
    assert [each["aria-label"] for each in elements.of("div") if each.get("role") == "img"] == ["History: score"] * 2
    identities = [each["id"] for each in elements.of("div", "section", "h2") if each.get("id")]
    assert len(identities) == len(set(identities))


def test_values_that_are_not_finite_are_none_in_the_script() -> None:
    (points, *_) = re.findall(r'\[\{"[^\n]*?"type":"scatter"\}\]', _page())
    (trace,) = json.loads(points)
    assert trace["x"] == [1.0, None]
    assert trace["y"] == [0.5, None]
