import math
from typing import Annotated, Any

import pytest

from lightning_hpo.flag_types import Bounds, type_problems


def _function(
    count: Annotated[int, Bounds(1)] = 1,
    share: Annotated[float | None, Bounds(0, 1)] = None,
    fraction: Annotated[float, Bounds(0, 1, exclusive=True)] = 0.5,
    name: str = "",
) -> None: ...


@pytest.mark.parametrize("values", [{}, {"count": 1, "share": 1.0, "fraction": 0.01, "name": "x"}, {"share": None}])
def test_values_within_bounds_have_no_problems(values: dict[str, Any]) -> None:
    assert type_problems("--group", _function, values) == []


def test_each_value_out_of_bounds_has_a_line() -> None:
    assert type_problems("--group", _function, {"count": 0, "share": -0.1, "fraction": 1.0}) == [
        "--group.count: got 0; it must be 1 or more",
        "--group.share: got -0.1; it must be from 0 to 1",
        "--group.fraction: got 1.0; it must be above 0 and below 1",
    ]


def test_nan_is_out_of_bounds() -> None:
    assert len(type_problems("--group", _function, {"share": math.nan, "fraction": math.nan})) == 2
