import regex
from hypothesis import given
from hypothesis import strategies as st

from lightning_hpo.data.graphemes import whole_graphemes

_SIGNS = (
    "ab \r\n\u0301\u0308\u00e9\U0001f469\U0001f467\u200d\U0001f3fd\U0001f1e9\U0001f1ea\u2764\ufe0f"
    "\ud55c\u1100\u1161\u0e19\u0e34\u0e4a\u0915\u094d"
)


@given(st.text(_SIGNS, min_size=1, max_size=12), st.data())
def test_range_is_extended_to_the_nearest_bounds(text: str, data: st.DataObject) -> None:
    bounds = [0, *(match.end() for match in regex.finditer(r"\X", text))]
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    expected = (max(bound for bound in bounds if bound <= start), min(bound for bound in bounds if bound >= end))
    assert whole_graphemes(text, start, end) == expected


def test_empty_range_stays_empty() -> None:
    assert whole_graphemes("e\u0301", 1, 1) == (1, 1)
