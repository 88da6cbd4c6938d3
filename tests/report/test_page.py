import json
import re
from datetime import datetime
from html.parser import HTMLParser

import pytest
from optuna.distributions import CategoricalDistribution
from plotly.offline import get_plotlyjs

from lightning_hpo.report.figures import Figure, figures
from lightning_hpo.report.page import render_page
from lightning_hpo.report.study_record import StudyRecord
from lightning_hpo.report.tables import Table
from tests.report.studies import ABOUT, make_study, make_trial

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


@pytest.fixture(scope="module")
def page() -> str:
    """The page of a study whose names are all markup."""
    kinds = {EVIL: CategoricalDistribution([EVIL, "b"]), "other": CategoricalDistribution([EVIL, "c"])}
    trials = [make_trial(number, kinds=kinds, ended_by=EVIL) for number in range(6)]
    about = ABOUT | {"constant_answers": {EVIL: 0.5}}
    study = make_study(None, trials, about)
    record = StudyRecord(study, {})
    record.name = EVIL
    sections: list[Figure | Table] = [
        *figures(record).values(),
        Figure("empty", "Empty", EVIL, drawn=False),
        Table("best_trial", "Best trial", "", ("name", EVIL), [("a", EVIL)], command=EVIL),
    ]
    return render_page(record, sections, NOW)


def test_page_needs_no_other_file(page: str) -> None:
    elements = _Elements(page)
    for attributes in elements.of("script", "img", "link", "iframe", "a", "object", "source"):
        place = attributes.get("src") or attributes.get("href") or "#"
        assert place.startswith(("#", "data:"))
    assert elements.of("script")[0] == {}
    assert elements.of("form", "base") == []


def test_names_in_the_study_are_text_and_never_markup(page: str) -> None:
    text = page.replace(get_plotlyjs(), "")
    assert "<img" not in text
    assert text.count("</script>") == text.count("<script")
    assert "&lt;/script&gt;" in text


def test_every_section_has_a_heading_and_is_in_the_contents(page: str) -> None:
    elements = _Elements(page)
    (language,) = elements.of("html")
    assert language == {"lang": "en"}
    assert len(elements.of("h1")) == 1
    names = ["history", "curves", "importance", "slices", "parallel", "timeline", "outcomes", "empty", "best_trial"]
    assert [each["id"] for each in elements.of("section")] == names
    assert [each["href"] for each in elements.of("a")] == [f"#{name}" for name in names]
    labels = [each["aria-label"] for each in elements.of("div") if each.get("role") == "img"]
    assert labels.count("Slices") == 2
    assert len(labels) == 8
    identities = [each["id"] for each in elements.of("div", "section", "h2") if each.get("id")]
    assert len(identities) == len(set(identities))


def test_data_in_the_scripts_is_valid_json(page: str) -> None:
    found = re.findall(r"(\[\{\"[^\n]*?\}\]),\s+\{\"", page.replace(get_plotlyjs(), ""))
    assert len(found) == 8
    for each in found:
        json.loads(each, parse_constant=pytest.fail)
